"""Boxes and anchors: coding, matching and decoding. No pixels, weights or files."""
