"""Faces of photos as people labeled them: one type, and one file for each format."""

KINDS = ("coco", "voc", "yolo", "csv", "widerface", "list", "aflw", "pts")  # of labels, as `read.READERS` has them
