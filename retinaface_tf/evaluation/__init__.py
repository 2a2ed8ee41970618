"""Detections and annotations in, scores out: the numbers that this field reports. NumPy and SciPy only, no model."""

PROTOCOL_NAMES = ("original", "1600", "vga", "multiscale", "1.5x", "2x", "3x")  # keys of `protocols.PROTOCOLS`
