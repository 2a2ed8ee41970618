"""Faces of photos as people labeled them: one type, and one file for each format."""
