"""Detect and track faces in videos and camera streams (extra `video`)."""
