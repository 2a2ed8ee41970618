"""Batches in, weights out: losses, optimiser, schedules, checkpoints and the trainer that joins them."""
