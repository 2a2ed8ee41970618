"""Training data: annotations to TFRecord shards and back. Importing this does not import TensorFlow."""
