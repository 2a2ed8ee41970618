"""Foreign checkpoints in, RetinaFace weights out: nothing that a file says is executed."""
