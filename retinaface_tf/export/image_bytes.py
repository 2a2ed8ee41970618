"""Decode a JPEG or PNG inside the graph, upright by its EXIF orientation, as `retinaface_tf.image.load_image` does."""

import tensorflow as tf

from retinaface_tf.export.options import MOST_PIXELS

MIRRORED = (2, 3, 6, 7)  # after the transposition, where there is one
UPSIDE_DOWN = (3, 4, 7, 8)
TRANSPOSED = (5, 6, 7, 8)
TAG, SHORT, LONG = 0x0112, 3, 4
EXIF_SEGMENT, START_OF_SCAN = 0xFFE1, 0xFFDA
PNG_HEAD = 8  # bytes before the first chunk


def decode_or_flag(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode the bytes of a photo, or return a flag if they are not a photo. It never fails.

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
    return apply_orientation(image, orientation(content)), tf.constant(False)


def _decode_jpeg(content):
    shape = tf.io.extract_jpeg_shape(content)
    with tf.control_dependencies([_refuse_bombs(shape[0], shape[1])]):
        # Pillow's choice; the default of TensorFlow is faster by little and off by up to three gray levels.
        return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(content):
    sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)  # of the header chunk
    with tf.control_dependencies([_refuse_bombs(sides[1], sides[0])]):
        pixels = tf.cast(tf.io.decode_png(content, channels=4), tf.int32)
    depth, color = tf.unstack(tf.cast(tf.io.decode_raw(tf.strings.substr(content, 24, 2), tf.uint8), tf.int32), num=2)
    # Of grays with fewer than 8 bits TensorFlow calls full opacity what is full in so many bits.
    opaque = tf.where((color == 0) & (depth < 8), tf.bitwise.left_shift(1, depth) - 1, 255)
    alpha = tf.where(pixels[..., 3:] == opaque, 255, pixels[..., 3:])
    shifted = (pixels[..., :3] * alpha + 255 * (255 - alpha)) * 128 + (128 << 7)
    return tf.cast((shifted // 256 + shifted) // 2**15, tf.uint8)  # Pillow's rounding of a division by 255


def _refuse_bombs(height, width):
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return tf.debugging.Assert((height > 0) & (width > 0) & (pixels <= MOST_PIXELS), [pixels])


def orientation(content: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation (EXIF 2.3) of a JPEG or PNG: scalar int32, 1 to 8; 1 where none makes sense."""
    data = tf.io.decode_raw(content, tf.uint8)
    is_png = tf.strings.substr(content, 1, 3) == b"PNG"
    tiff = tf.cond(is_png, lambda: _find_in_png(content, data), lambda: _find_in_jpeg(content, data))
    return tf.cond(tiff > 0, lambda: _read_tag(data, tiff), lambda: tf.constant(1))


def apply_orientation(image: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Turn and mirror a photo `[H, W, C]` as its orientation says; from 5 on its sides change places."""
    image = tf.cond(_is_one_of(value, TRANSPOSED), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(_is_one_of(value, MIRRORED), lambda: tf.reverse(image, (1,)), lambda: image)
    return tf.cond(_is_one_of(value, UPSIDE_DOWN), lambda: tf.reverse(image, (0,)), lambda: image)


def _is_one_of(value, values):
    return tf.reduce_any(value == tf.constant(values))


def _find_in_jpeg(content, data):
    """Where the TIFF structure of the EXIF segment begins; 0 if there is none. Scalar int32."""

    def goes_on(at, found):
        marker = _number(data, at, 2, True)
        return (found == 0) & (at < tf.size(data)) & (marker >= 0xFF00) & (marker != START_OF_SCAN)

    def step(at, found):
        is_exif = (_number(data, at, 2, True) == EXIF_SEGMENT) & _says(content, at + 4, b"Exif\0\0")
        return at + 2 + _number(data, at + 2, 2, True), tf.where(is_exif, at + 10, found)

    return tf.while_loop(goes_on, step, (tf.constant(2), tf.constant(0)))[1]


def _find_in_png(content, data):
    """Likewise, of the eXIf chunk."""

    def goes_on(at, found):
        return (found == 0) & (at < tf.size(data))

    def step(at, found):
        found = tf.where(_says(content, at + 4, b"eXIf"), at + 8, found)
        # A damaged length must not lead backwards.
        return at + 12 + tf.clip_by_value(_number(data, at, 4, True), 0, tf.size(data)), found

    return tf.while_loop(goes_on, step, (tf.constant(PNG_HEAD), tf.constant(0)))[1]


def _read_tag(data, tiff):
    big = _number(data, tiff, 1, True) == ord("M")
    table = tiff + tf.clip_by_value(_number(data, tiff + 4, 4, big), 0, tf.size(data))
    entries = tf.minimum(_number(data, table, 2, big), (tf.size(data) - table) // 12)
    starts = table + 2 + 12 * tf.range(tf.maximum(entries, 0))
    kinds = _number(data, starts + 2, 2, big)
    values = tf.where(kinds == LONG, _number(data, starts + 8, 4, big), _number(data, starts + 8, 2, big))
    hits = (_number(data, starts, 2, big) == TAG) & ((kinds == SHORT) | (kinds == LONG))
    value = tf.reduce_max(tf.where(hits, values, 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _number(data, at, count, big):
    """The unsigned number of `count` bytes at `at`, any shape, as int32; 0 for bytes past the end."""
    places = at[..., None] + tf.range(count)
    inside = (places >= 0) & (places < tf.size(data))
    digits = tf.where(inside, tf.cast(tf.gather(data, tf.where(inside, places, 0)), tf.int32), 0)
    order = tf.where(big, count - 1 - tf.range(count), tf.range(count))
    return tf.reduce_sum(tf.bitwise.left_shift(digits, 8 * order), axis=-1)


def _says(content, at, text):
    length = tf.strings.length(content)
    return tf.strings.substr(content, tf.minimum(at, length), len(text)) == text
