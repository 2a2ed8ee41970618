"""Training: from batches to weights."""
