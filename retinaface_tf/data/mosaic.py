"""Four photos in one: more faces, smaller ones, beside other backgrounds."""

from collections.abc import Sequence

import tensorflow as tf


def mosaic(
    images: Sequence[tf.Tensor], faces: Sequence[dict[str, tf.Tensor]]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Four images of equal size, two by two.

    Args:
        images: list of four, uint8 `[S, S, 3]`.
        faces: list of four dicts as `mirror` takes them.

    Returns:
        (image uint8 `[2 S, 2 S, 3]`, faces of all four).
    """
    rows = [tf.concat(images[:2], axis=1), tf.concat(images[2:], axis=1)]
    side = tf.cast(tf.shape(images[0])[0], tf.float32)
    corners = [side * tf.constant(corner, tf.float32) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return tf.concat(rows, axis=0), {
        "boxes": tf.concat([one["boxes"] + tf.tile(c, [2]) for one, c in zip(faces, corners, strict=True)], axis=0),
        "landmarks": tf.concat([one["landmarks"] + c for one, c in zip(faces, corners, strict=True)], axis=0),
        "visible": tf.concat([one["visible"] for one in faces], axis=0),
    }
