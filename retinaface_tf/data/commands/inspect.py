"""`retinaface-tf inspect`."""
