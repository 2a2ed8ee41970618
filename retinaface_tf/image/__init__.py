"""Photo file to pixels, to a canvas and back: loading, letterbox, alignment, crops, drawing."""

from retinaface_tf.image.loading import ImageError, load_image

__all__ = ["ImageError", "load_image"]
