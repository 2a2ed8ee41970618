"""Labeled faces of photos: one type, and one module per file format."""

KINDS = ("coco", "voc", "yolo", "csv", "widerface", "list", "aflw", "pts")  # of labels, as `read.READERS` has them
