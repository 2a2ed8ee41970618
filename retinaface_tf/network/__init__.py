"""Pixels in, raw predictions out: backbone, feature pyramid, context modules, heads."""
