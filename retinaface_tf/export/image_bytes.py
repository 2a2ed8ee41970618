"""Bytes of a JPEG or PNG to a photo as a person sees it, inside the graph, as `retinaface_tf.image.load_image` does."""

import tensorflow as tf

from retinaface_tf.export import exif
from retinaface_tf.export.options import MOST_PIXELS


def decode_or_flag(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A photo, or a flag where the bytes are none; it never fails.

    Args:
        content: scalar string tensor.

    Returns:
        (uint8 tensor `[H, W, 3]`, RGB, EXIF orientation applied, transparency laid over white, 16 bits brought to 8;
        scalar bool tensor, whether the bytes could not be used). With the flag the photo is a black pixel.
    """
    # An operation that fails ends its graph, and the batch with it, except inside of a data set that ignores errors.
    photo = tf.data.Dataset.from_tensors(content).map(_decode).ignore_errors()
    instead = tf.data.Dataset.from_tensors((tf.zeros((1, 1, 3), tf.uint8), tf.constant(True)))
    return photo.concatenate(instead).take(1).get_single_element()


def _decode(content):
    is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    image = tf.cond(is_png, lambda: _decode_png(content), lambda: _decode_jpeg(content))
    return exif.apply(image, exif.orientation(content)), tf.constant(False)


def _decode_jpeg(content):
    shape = tf.io.extract_jpeg_shape(content)
    with tf.control_dependencies([_refuse_bombs(shape[0], shape[1])]):
        # Pillow's choice; the default of TensorFlow is faster by little and off by up to three gray levels.
        return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(content):
    sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)  # of the header chunk
    with tf.control_dependencies([_refuse_bombs(sides[1], sides[0])]):
        pixels = tf.cast(tf.io.decode_png(content, channels=4), tf.int32)
    depth, colour = tf.unstack(tf.cast(tf.io.decode_raw(tf.strings.substr(content, 24, 2), tf.uint8), tf.int32), num=2)
    # Of grays with fewer than 8 bits TensorFlow calls full opacity what is full in so many bits.
    opaque = tf.where((colour == 0) & (depth < 8), tf.bitwise.left_shift(1, depth) - 1, 255)
    alpha = tf.where(pixels[..., 3:] == opaque, 255, pixels[..., 3:])
    shifted = (pixels[..., :3] * alpha + 255 * (255 - alpha)) * 128 + (128 << 7)
    return tf.cast((shifted // 256 + shifted) // 2**15, tf.uint8)  # Pillow's rounding of a division by 255


def _refuse_bombs(height, width):
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return tf.debugging.Assert((height > 0) & (width > 0) & (pixels <= MOST_PIXELS), [pixels])
