"""Choose a square of a photo to train on, cut it out, and keep the faces in it."""

import math
from collections.abc import Sequence

import tensorflow as tf

from retinaface_tf.common.types import NOT_LABELED
from retinaface_tf.data.example import decode_photo
from retinaface_tf.data.fields import FaceField, Faces, scale_faces
from retinaface_tf.geometry.boxes import clip

CROP_SIDES = (0.3, 0.45, 0.6, 0.8, 1.0)  # of the short side; Pytorch_Retinaface, data/data_augment.py
LARGE_CROP_SIDES = (*CROP_SIDES, 1.2, 1.4, 1.6, 1.8, 2.0)  # SCRFD (arXiv 2105.04714): more small faces
TRIES = 250
SLACK = 0.01  # pixels; coordinates have been through [0, 1] in float32


def random_square(
    boxes: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    seed: tf.Tensor,
    *,
    sides: Sequence[float],
    image_size: int,
    min_face: float = 0.0,
    reduced_decode: bool = True,
) -> tf.Tensor:
    """A random square that wholly contains a face.

    All tries are drawn at once and the first that fits is taken. If none does it is `whole_square`; without faces it is
    the first try. A square that is longer than a side of the photo reaches beyond it on both sides at random.

    Args:
        boxes: float32 `[N, 4]`, `xyxy` pixels of the photo; N may be 0.
        height, width: int32 `[]`, of the photo.
        seed: int `[2]`.
        sides: floats, parts of the short side.
        image_size: int, what the square will be resized to.
        min_face: the contained face must have at least this smaller side, in resized pixels.
        reduced_decode: keep to squares that `cut` can take from a reduced photo.

    Returns:
        int32 `[3]`: left, top and side in pixels of the photo.
    """
    draws = tf.random.stateless_uniform([3, TRIES], seed)
    short = tf.cast(tf.minimum(height, width), tf.float32)
    choice = tf.minimum(tf.cast(draws[0] * len(sides), tf.int32), len(sides) - 1)
    side = tf.maximum(tf.cast(tf.gather(tf.constant(sides, tf.float32), choice) * short, tf.int32), 1)
    step = reduction(side, image_size) if reduced_decode else tf.ones_like(side)
    side = side // step * step

    def start(draw, length):
        low, high = tf.minimum(length - side, 0), tf.maximum(length - side, 0)
        drawn = low + tf.cast(draw * tf.cast(high - low + 1, tf.float32), tf.int32)
        return tf.minimum(drawn, high) // step * step

    left, top = start(draws[1], width), start(draws[2], height)
    # A slice of the stacked squares with a new axis comes back in a wrong shape from TensorFlow 2.21's graph optimizer.
    low = tf.cast(tf.stack([left, top], axis=-1), tf.float32)[:, None] - SLACK
    high = tf.cast(tf.stack([left + side, top + side], axis=-1), tf.float32)[:, None] + SLACK
    inside = tf.reduce_all((boxes[:, :2] >= low) & (boxes[:, 2:] <= high), axis=-1)
    smaller = tf.reduce_min(boxes[:, 2:] - boxes[:, :2], axis=-1)
    inside &= smaller * image_size >= min_face * tf.cast(side, tf.float32)[:, None]
    fits = tf.reduce_any(inside, axis=-1) | (tf.shape(boxes)[0] == 0)
    first = tf.stack([left, top, side], axis=-1)[tf.argmax(tf.cast(fits, tf.int32))]
    whole = whole_square(height, width, image_size=image_size, reduced_decode=reduced_decode)
    return tf.where(tf.reduce_any(fits), first, whole)


def square_for_face(
    boxes: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    seed: tf.Tensor,
    *,
    face_sizes: Sequence[float],
    ends: tuple[float, float],
    image_size: int,
    reduced_decode: bool = True,
) -> tf.Tensor:
    """A square in which a random face has a random size (after PyramidBox's data-anchor sampling, arXiv 1803.07737).

    Args:
        boxes, height, width, seed, image_size, reduced_decode: as in `random_square`; at least one box.
        face_sizes: (smallest, largest) size of the face after resizing, sqrt(width * height); drawn on a logarithmic
            scale.
        ends: (least, most) side of the square, in parts of the photo's short and of its long side.

    Returns:
        int32 `[3]`, as `random_square`; the face is in it if the square is as large as the face.
    """
    draws = tf.random.stateless_uniform([4], seed)
    count = tf.shape(boxes)[0]
    box = boxes[tf.minimum(tf.cast(draws[0] * tf.cast(count, tf.float32), tf.int32), count - 1)]
    low, high = (math.log(size) for size in face_sizes)
    target = tf.exp(low + (high - low) * draws[1])
    sides = tf.maximum(box[2:] - box[:2], 1.0)
    size = tf.cast(tf.stack([height, width]), tf.float32)
    wanted = tf.sqrt(sides[0] * sides[1]) * image_size / target
    wanted = tf.clip_by_value(wanted, ends[0] * tf.reduce_min(size), ends[1] * tf.reduce_max(size))
    side = tf.maximum(tf.cast(wanted, tf.int32), 1)
    step = reduction(side, image_size) if reduced_decode else tf.ones_like(side)
    side = tf.maximum(side // step, 1) * step

    def start(draw, first, last, length):
        """One of the starts from which the face is inside, and of the photo as much as can be."""
        outer = tf.minimum(length - side, 0), tf.maximum(length - side, 0)
        low = tf.clip_by_value(tf.cast(tf.math.ceil(last), tf.int32) - side, *outer)
        high = tf.maximum(tf.clip_by_value(tf.cast(first, tf.int32), *outer), low)
        drawn = low + tf.cast(draw * tf.cast(high - low + 1, tf.float32), tf.int32)
        return tf.minimum(drawn, high) // step * step

    return tf.stack([start(draws[2], box[0], box[2], width), start(draws[3], box[1], box[3], height), side])


def whole_square(height: tf.Tensor, width: tf.Tensor, *, image_size: int, reduced_decode: bool = True) -> tf.Tensor:
    """The smallest square that holds the whole photo, with the photo at its top left: int32 `[3]`."""
    side = tf.maximum(height, width)
    step = reduction(side, image_size) if reduced_decode else 1
    return tf.stack([0, 0, (side + step - 1) // step * step])


def reduction(side: tf.Tensor, image_size: int) -> tf.Tensor:
    """1, 2, 4 or 8: by how much a JPEG may be reduced while it is decoded so that resizing still makes it smaller."""
    ratio = side // image_size
    return sum(tf.where(ratio >= factor, factor // 2, 0) for factor in (2, 4, 8)) + 1


def cut(
    example: dict[str, tf.Tensor], square: tf.Tensor, *, image_size: int, reduced_decode: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """The part of a photo that is in a square; of a JPEG nothing else is decoded.

    Args:
        example: dict with `height`, `width` and either `image` uint8 `[H, W, 3]` or `encoded`.
        square: int32 `[3]`, of `random_square` or `whole_square`.
        image_size: int, what the square will be resized to.
        reduced_decode: decode a JPEG at a half, a quarter or an eighth if the square is still as large as `image_size`.

    Returns:
        (patch uint8 `[h, w, 3]`, place int32 `[3]`: left and top of the patch in the square, and the square's side,
        in pixels of the patch).
    """
    left, top, side = tf.unstack(square)
    step = reduction(side, image_size) if reduced_decode else tf.ones_like(side)
    y, x = tf.maximum(top, 0), tf.maximum(left, 0)
    end_y, end_x = tf.minimum(top + side, example["height"]), tf.minimum(left + side, example["width"])

    def reduced(ratio):
        window = [y // ratio, x // ratio, -(-end_y // ratio) - y // ratio, -(-end_x // ratio) - x // ratio]
        return tf.raw_ops.DecodeAndCropJpeg(
            contents=example["encoded"], crop_window=tf.stack(window), channels=3, ratio=ratio
        )

    def jpeg():
        branches = {index: lambda ratio=ratio: reduced(ratio) for index, ratio in enumerate((1, 2, 4, 8))}
        index = tf.reduce_sum(tf.cast(step >= [2, 4, 8], tf.int32))
        return (tf.switch_case(index, branches) if reduced_decode else reduced(1)), step

    def other():
        image = example["image"] if "image" in example else decode_photo(example["encoded"])
        return image[y:end_y, x:end_x], tf.ones_like(step)

    if "image" in example:
        patch, step = other()
    else:
        patch, step = tf.cond(tf.io.is_jpeg(example["encoded"]), jpeg, other)
    place = tf.stack([tf.maximum(-left, 0) // step, tf.maximum(-top, 0) // step, side // step])
    return tf.ensure_shape(patch, [None, None, 3]), place


def crop_faces(
    faces: Faces, fields: Sequence[FaceField], square: tf.Tensor, *, image_size: int, min_face: float = 0.0
) -> Faces:
    """The faces whose center is in a square, in pixels of the square resized; those below `min_face` are left out.

    Boxes are clipped to the square. Landmarks are not: one that fell out keeps its label, with coordinates outside. Of
    an ignore region every part is kept.
    """
    scale = image_size / tf.cast(square[2], tf.float32)
    corner = tf.cast(square[:2], tf.float32)
    return keep_faces(scale_faces(faces, fields, corner, scale), image_size=image_size, min_face=min_face)


def keep_faces(faces: Faces, *, image_size: int, min_face: float = 0.0) -> Faces:
    """The faces whose center is in the image, clipped to it, and ignore regions of which a part is."""
    boxes = faces["boxes"]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    clipped = clip(boxes, tf.constant([0, 0, image_size, image_size], tf.float32))
    smaller = tf.reduce_min(clipped[:, 2:] - clipped[:, :2], axis=-1)
    kept = tf.reduce_all((centers > 0) & (centers < image_size), axis=-1) & (smaller >= min_face)
    kept = (kept | (faces["ignored"] == 1)) & (smaller > 0)
    labeled = (faces["visible"] != NOT_LABELED)[..., None]
    faces = {**faces, "boxes": clipped, "landmarks": tf.where(labeled, faces["landmarks"], 0.0)}
    return {key: tf.boolean_mask(value, kept) for key, value in faces.items()}
