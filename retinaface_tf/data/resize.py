"""A patch of a photo on its square, at the network's size."""

from collections.abc import Sequence

import tensorflow as tf

# OpenCV's five of Pytorch_Retinaface; its Lanczos window is 4 pixels, TensorFlow has 3 and 5.
INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "area", "lanczos3")


def fill_around(patch: tf.Tensor, place: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Paint a patch on a square of one colour.

    Args:
        patch: uint8 `[h, w, 3]`.
        place: int32 `[3]`: left and top of the patch in the square, and the square's side.
        fill: uint8 `[3]`.

    Returns:
        uint8 `[side, side, 3]`.
    """
    left, top, side = tf.unstack(place)
    height, width = tf.unstack(tf.shape(patch)[:2])

    def painted():
        # Arithmetic of uint8 wraps around, so that a fill of 0 comes back as the colour, exactly.
        margins = [[top, side - top - height], [left, side - left - width], [0, 0]]
        return tf.pad(patch - fill, margins) + fill

    canvas = tf.cond((height == side) & (width == side), lambda: patch, painted)
    return tf.ensure_shape(canvas, [None, None, 3])


def resize(
    image: tf.Tensor, image_size: int, interpolation: tf.Tensor, names: Sequence[str] = INTERPOLATIONS
) -> tf.Tensor:
    """An image at another size, without smoothing first, as OpenCV does it.

    Args:
        image: uint8 `[H, W, 3]`.
        image_size: int.
        interpolation: int `[]`, index into `names`.
        names: methods of `tf.image.resize`.

    Returns:
        uint8 `[image_size, image_size, 3]`.
    """

    def by(name):
        pixels = tf.image.resize(image, [image_size, image_size], method=name)
        return pixels if pixels.dtype == tf.uint8 else tf.saturate_cast(tf.round(pixels), tf.uint8)

    if len(names) == 1:
        return by(names[0])
    return tf.switch_case(interpolation, [lambda name=name: by(name) for name in names])
