"""Numbers only: boxes, anchors, their coding and their matching. No pixels, no weights, no files."""
