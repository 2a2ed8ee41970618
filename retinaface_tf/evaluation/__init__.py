"""Detections in, scores out: the numbers that this field reports. NumPy and SciPy only, no model code."""
