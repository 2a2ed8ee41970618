"""The command line `retinaface-tf`."""
