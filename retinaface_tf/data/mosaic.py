"""Four photos in one: more faces, smaller ones, beside other backgrounds."""

from collections.abc import Sequence

import tensorflow as tf

from retinaface_tf.dense.vertices import scale_faces


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
    corners = [-side * tf.constant(corner, tf.float32) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    placed = [scale_faces(one, corner, 1.0) for one, corner in zip(faces, corners, strict=True)]
    return tf.concat(rows, axis=0), {key: tf.concat([one[key] for one in placed], axis=0) for key in faces[0]}
