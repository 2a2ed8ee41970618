"""Annotations in, TFRecord shards out, and back. Importing this imports no TensorFlow."""
