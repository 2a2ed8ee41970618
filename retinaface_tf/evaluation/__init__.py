"""Scores from detections and annotations. NumPy and SciPy only, no model.

The names here are for whoever lists choices before anything is imported.
"""

PROTOCOL_NAMES = ("original", "1600", "vga", "multiscale", "1.5x", "2x", "3x")  # keys of `protocols.PROTOCOLS`
CORRUPTION_KINDS = ("jpeg", "noise", "rotation", "scale")  # of `robustness.CORRUPTIONS`
