"""Transforms of training images and their faces: colors, blur, sizes, turns, mirror, mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from retinaface_tf.data.fields import FaceField, Faces, join_faces, mirror_faces, move_faces, scale_faces

# OpenCV's five of Pytorch_Retinaface; its Lanczos window is 4 pixels, TensorFlow has 3 and 5.
INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "area", "lanczos3")


def distort_colors(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    brightness: float = 32.0,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: float = 0.1,
    probability: float = 0.5,
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, each changed or not by lot.

    As SSD (arXiv 1512.02325) and Pytorch_Retinaface do it: contrast comes before or after saturation and hue, by lot;
    its factor multiplies the pixels themselves, not their distance from the mean.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        seed: int `[2]`.
        brightness: most that is added or taken away, in levels of 255.
        contrast, saturation: ranges of the factor.
        hue: most that is added or taken away, in turns of the color circle.
        probability: of each of the four.

    Returns:
        uint8 `[H, W, 3]`.
    """
    draws = tf.random.stateless_uniform([9], seed)
    wanted, contrast_first, parts = draws[:4] < probability, draws[4] < 0.5, draws[5:]

    def between(low, high, part):
        return low + (high - low) * part

    def brighter(x):
        return _levels(x + between(-brightness, brightness, parts[0]))

    def contrasted(x):
        return _levels(x * between(*contrast, parts[1]))

    def saturated(x):
        return tf.image.adjust_saturation(x, between(*saturation, parts[2]))

    def turned(x):
        return tf.image.adjust_hue(x, between(-hue, hue, parts[3]))

    steps = [
        (wanted[0], brighter),
        (wanted[1] & contrast_first, contrasted),
        (wanted[2], saturated),
        (wanted[3], turned),
        (wanted[1] & ~contrast_first, contrasted),
    ]

    def distorted():
        x = tf.cast(image, tf.float32)
        for condition, change in steps:
            x = tf.cond(condition, lambda x=x, change=change: change(x), lambda x=x: x)
        return tf.saturate_cast(tf.round(x), tf.uint8)

    return tf.ensure_shape(tf.cond(tf.reduce_any(wanted), distorted, lambda: image), image.shape)


def _levels(x):
    return tf.clip_by_value(x, 0.0, 255.0)


def fill_around(patch: tf.Tensor, place: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Paint a patch on a square of one color.

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
        # Arithmetic of uint8 wraps around, so that a fill of 0 comes back as the color, exactly.
        margins = [[top, side - top - height], [left, side - left - width], [0, 0]]
        return tf.pad(patch - fill, margins) + fill

    canvas = tf.cond((height == side) & (width == side), lambda: patch, painted)
    return tf.ensure_shape(canvas, [None, None, 3])


def blur(image: tf.Tensor, seed: tf.Tensor, probability: float, max_factor: float = 2.5) -> tf.Tensor:
    """Lose detail: make an image smaller, width and height by factors of their own, and larger again.

    Args:
        image: uint8 `[S, S, 3]`.
        seed: int `[2]`.
        probability: Probability that the image is changed.
        max_factor: Largest factor.

    Returns:
        uint8 `[S, S, 3]`.
    """
    draws = tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, 1))
    shape = tf.shape(image)[:2]

    def blurred():
        small = tf.cast(tf.cast(shape, tf.float32) / (1 + (max_factor - 1) * draws[1:]), tf.int32)
        pixels = tf.image.resize(image, tf.maximum(small, 1), method="bilinear", antialias=True)
        return tf.saturate_cast(tf.round(tf.image.resize(pixels, shape, method="bicubic")), tf.uint8)

    return tf.ensure_shape(tf.cond(draws[0] < probability, blurred, lambda: image), image.shape)


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


def rotate_quarters(
    image: tf.Tensor, faces: Faces, fields: Sequence[FaceField], quarters: tf.Tensor
) -> tuple[tf.Tensor, Faces]:
    """Turn a square image counter-clockwise by quarters, exactly.

    Args:
        image: `[S, S, 3]`.
        faces, fields: See `fields.py`. Points keep their order: turning does not exchange left and right.
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
    return pixels, {**move_faces(faces, fields, turned), "boxes": boxes}


def rotate(
    image: tf.Tensor, faces: Faces, fields: Sequence[FaceField], degrees: tf.Tensor, fill: tf.Tensor
) -> tuple[tf.Tensor, Faces]:
    """Turn a square image clockwise about its center; what comes in from outside has the color `fill`.

    Args:
        image: uint8 `[S, S, 3]`.
        faces, fields: See `fields.py`. Points keep their order: turning does not exchange left and right.
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
    centers, (a, b) = turned((low + high) / 2), tf.unstack((high - low) / 2, axis=-1)
    half = tf.stack(
        [tf.sqrt((a * cosine) ** 2 + (b * sine) ** 2), tf.sqrt((a * sine) ** 2 + (b * cosine) ** 2)], axis=-1
    )
    boxes = tf.concat([centers - half, centers + half], axis=-1)

    # The op asks for each output pixel where it comes from, and counts from the middle of the first pixel.
    pivot = middle - 0.5
    shift_x, shift_y = pivot - cosine * pivot - sine * pivot, pivot + sine * pivot - cosine * pivot
    zero = tf.zeros_like(cosine)
    color = tf.cast(fill, tf.float32)
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=(tf.cast(image, tf.float32) - color)[None],
        transforms=tf.stack([cosine, sine, shift_x, -sine, cosine, shift_y, zero, zero])[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    pixels = tf.saturate_cast(tf.round(pixels[0] + color), tf.uint8)
    return tf.ensure_shape(pixels, image.shape), {**move_faces(faces, fields, turned), "boxes": boxes}


def mirror(image: tf.Tensor, faces: Faces, fields: Sequence[FaceField]) -> tuple[tf.Tensor, Faces]:
    """Exchange left and right.

    Args:
        image: `[H, W, 3]`.
        faces, fields: See `fields.py`; in pixels of the image.

    Returns:
        (image, faces).
    """
    return tf.reverse(image, axis=[1]), mirror_faces(faces, fields, tf.cast(tf.shape(image)[1], tf.float32))


def mosaic(images: Sequence[tf.Tensor], faces: Sequence[Faces], fields: Sequence[FaceField]) -> tuple[tf.Tensor, Faces]:
    """Put four images of equal size together, two by two: more faces, smaller ones, beside other backgrounds.

    Args:
        images: Four uint8 `[S, S, 3]`.
        faces: The faces of each; see `fields.py`.
        fields: As in `fields.py`.

    Returns:
        (image uint8 `[2 S, 2 S, 3]`, faces of all four).
    """
    rows = [tf.concat(images[:2], axis=1), tf.concat(images[2:], axis=1)]
    side = tf.cast(tf.shape(images[0])[0], tf.float32)
    corners = [-side * tf.constant(corner, tf.float32) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    placed = [scale_faces(one, fields, corner, 1.0) for one, corner in zip(faces, corners, strict=True)]
    return tf.concat(rows, axis=0), join_faces(placed)
