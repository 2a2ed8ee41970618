"""Faces in moving pictures: clips and cameras in, frames with faces and their identities out (extra `video`)."""
