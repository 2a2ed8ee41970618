"""The command `retinaface-tf`: words to one call to one printed result."""
