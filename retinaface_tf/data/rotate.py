"""Images turned: by quarters, exactly, and by a few degrees.

Landmarks and vertices keep their order: turning does not exchange a face's left and right.
"""

import math

import tensorflow as tf

from retinaface_tf.dense.vertices import move_faces


def rotate_quarters(
    image: tf.Tensor, faces: dict[str, tf.Tensor], quarters: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A square image turned counter-clockwise by quarters.

    Args:
        image: `[S, S, 3]`.
        faces: dict as `mirror` takes it.
        quarters: int32 `[]`, 0 to 3.

    Returns:
        (image, faces).
    """
    side = tf.cast(tf.shape(image)[0], tf.float32)

    def turned(points):
        x, y = points[..., 0], points[..., 1]
        ways = [(x, y), (y, side - x), (side - x, side - y), (side - y, x)]
        return tf.gather(tf.stack([tf.stack(way, axis=-1) for way in ways]), quarters)

    one, other = turned(faces["boxes"][:, :2]), turned(faces["boxes"][:, 2:])
    boxes = tf.concat([tf.minimum(one, other), tf.maximum(one, other)], axis=-1)
    pixels = tf.ensure_shape(tf.image.rot90(image, quarters), image.shape)
    return pixels, {**move_faces(faces, turned), "boxes": boxes}


def rotate(
    image: tf.Tensor, faces: dict[str, tf.Tensor], degrees: tf.Tensor, fill: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A square image turned clockwise about its centre; what comes into it from outside has the colour `fill`.

    Args:
        image: uint8 `[S, S, 3]`.
        faces: dict as `mirror` takes it.
        degrees: float32 `[]`.
        fill: uint8 `[3]`.

    Returns:
        (image, faces). A box becomes the box of its turned inscribed ellipse, which fits a head better than that of its
        turned corners. Boxes may reach outside.
    """
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle = tf.cast(tf.shape(image)[0], tf.float32) / 2

    def turned(points):
        x, y = points[..., 0] - middle, points[..., 1] - middle
        return tf.stack([x * cosine - y * sine, x * sine + y * cosine], axis=-1) + middle

    low, high = faces["boxes"][:, :2], faces["boxes"][:, 2:]
    centres, (a, b) = turned((low + high) / 2), tf.unstack((high - low) / 2, axis=-1)
    half = tf.stack(
        [tf.sqrt((a * cosine) ** 2 + (b * sine) ** 2), tf.sqrt((a * sine) ** 2 + (b * cosine) ** 2)], axis=-1
    )
    boxes = tf.concat([centres - half, centres + half], axis=-1)

    # The op asks for each output pixel where it comes from, and counts from the middle of the first pixel.
    pivot = middle - 0.5
    shift_x, shift_y = pivot - cosine * pivot - sine * pivot, pivot + sine * pivot - cosine * pivot
    zero = tf.zeros_like(cosine)
    colour = tf.cast(fill, tf.float32)
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=(tf.cast(image, tf.float32) - colour)[None],
        transforms=tf.stack([cosine, sine, shift_x, -sine, cosine, shift_y, zero, zero])[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    pixels = tf.saturate_cast(tf.round(pixels[0] + colour), tf.uint8)
    return tf.ensure_shape(pixels, image.shape), {**move_faces(faces, turned), "boxes": boxes}
