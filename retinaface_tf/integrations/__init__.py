"""Other libraries and services: supervision, FiftyOne, COCO, Ray, TensorFlow Serving."""
