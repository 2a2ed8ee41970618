"""Augment labeled photos: color, blur, size, rotation, mirror and mosaic, reproducible by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from retinaface_tf.common.types import NOT_LABELED
from retinaface_tf.data.crop import (
    CROP_SIDES,
    crop_faces,
    cut,
    keep_faces,
    random_square,
    square_for_face,
    whole_square,
)
from retinaface_tf.data.fields import (
    FACE_FIELDS,
    FaceField,
    Faces,
    complete_faces,
    join_faces,
    mirror_faces,
    move_faces,
    scale_faces,
)

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
    """Change brightness, contrast, saturation and hue at random.

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
    applied, contrast_first, parts = draws[:4] < probability, draws[4] < 0.5, draws[5:]

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
        (applied[0], brighter),
        (applied[1] & contrast_first, contrasted),
        (applied[2], saturated),
        (applied[3], turned),
        (applied[1] & ~contrast_first, contrasted),
    ]

    def distorted():
        x = tf.cast(image, tf.float32)
        for condition, change in steps:
            x = tf.cond(condition, lambda x=x, change=change: change(x), lambda x=x: x)
        return tf.saturate_cast(tf.round(x), tf.uint8)

    return tf.ensure_shape(tf.cond(tf.reduce_any(applied), distorted, lambda: image), image.shape)


def _levels(x):
    return tf.clip_by_value(x, 0.0, 255.0)


def fill_around(patch: tf.Tensor, place: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Paint a patch uint8 `[h, w, 3]` on a square `[side, side, 3]` of one color.

    `place` is int32 `[3]`: left and top of the patch in the square, and the square's side.
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
    """Blur an image uint8 `[S, S, 3]`: shrink width and height by different factors, and enlarge it again."""
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
    """Resize an image without antialiasing, as OpenCV does; `interpolation` is an index into `names`."""

    def by(name):
        pixels = tf.image.resize(image, [image_size, image_size], method=name)
        return pixels if pixels.dtype == tf.uint8 else tf.saturate_cast(tf.round(pixels), tf.uint8)

    if len(names) == 1:
        return by(names[0])
    return tf.switch_case(interpolation, [lambda name=name: by(name) for name in names])


def rotate_quarters(
    image: tf.Tensor, faces: Faces, fields: Sequence[FaceField], quarters: tf.Tensor
) -> tuple[tf.Tensor, Faces]:
    """Rotate a square image and its faces counter-clockwise by 0 to 3 quarters. Points keep their order."""
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
    """Rotate a square image, with its faces, clockwise about its center; new corners have the color `fill`.

    A box becomes the box of its turned inscribed ellipse, which fits a head better than that of its turned corners.
    Boxes may reach outside. Points keep their order: turning does not exchange left and right.
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
    """Exchange left and right of an image and its faces."""
    return tf.reverse(image, axis=[1]), mirror_faces(faces, fields, tf.cast(tf.shape(image)[1], tf.float32))


def mosaic(images: Sequence[tf.Tensor], faces: Sequence[Faces], fields: Sequence[FaceField]) -> tuple[tf.Tensor, Faces]:
    """Combine four images of equal size, two by two, for more and smaller faces with other backgrounds.

    Four uint8 `[S, S, 3]` and their faces give (image uint8 `[2 S, 2 S, 3]`, faces of all four).
    """
    rows = [tf.concat(images[:2], axis=1), tf.concat(images[2:], axis=1)]
    side = tf.cast(tf.shape(images[0])[0], tf.float32)
    corners = [-side * tf.constant(corner, tf.float32) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    placed = [scale_faces(one, fields, corner, 1.0) for one, corner in zip(faces, corners, strict=True)]
    return tf.concat(rows, axis=0), join_faces(placed)


class Augmentation:
    """Crop, color, fill, resize, turn, mirror: `augmentation(example, seed)`, in eager mode or in `tf.data`.

    The defaults are the recipe of Pytorch_Retinaface.

    Args:
        image_size: int, side of the result.
        crop_sides: sides of the random square as parts of the photo's short side; above 1 it reaches beyond the photo.
            `None` takes the whole photo.
        brightness, contrast, saturation, hue, color_probability: see `distort_colors`.
        interpolations: methods of `tf.image.resize` of which one is drawn.
        mirror: probability.
        rot90: probability of a turn by 90, 180 or 270 degrees.
        rotation: most degrees of a turn either way; 0 for none.
        min_face: faces whose smaller side is shorter than this many pixels of the result are left out. They stay in the
            picture, as background: a value above the smallest anchor's reach teaches the network to miss them.
        face_sizes: (smallest, largest) in pixels of the result, or `None`. A random face gets a random size, on a
            logarithmic scale, and the square is made for it: faces of 8 to 16 pixels come as often as those of 32 to
            64, whatever the photos hold. Squares stay within the ends of `crop_sides`.
        face_size_probability: of such a square rather than one of `crop_sides`.
        blur: probability that the result is made up to 2.5 times smaller, in width and height alone, and larger again:
            as photos are that were enlarged, compressed or out of focus.
        fill: RGB color of what is not photo: the network's mean.
        reduced_decode: decode a JPEG at a half, a quarter or an eighth of its size where the square is then still no
            smaller than the result. Faster, and smoother than taking every n-th pixel.
        fields: Further per-face fields, such as those of a dense branch; see `fields.py`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        image_size: int,
        *,
        crop_sides: Sequence[float] | None = CROP_SIDES,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 0.1,
        color_probability: float = 0.5,
        interpolations: Sequence[str] = INTERPOLATIONS,
        mirror: float = 0.5,
        rot90: float = 0.0,
        rotation: float = 0.0,
        min_face: float = 0.0,
        face_sizes: Sequence[float] | None = None,
        face_size_probability: float = 1.0,
        blur: float = 0.0,
        fill: Sequence[int] = (123, 117, 104),
        reduced_decode: bool = True,
        fields: Sequence[FaceField] = (),
    ) -> None:
        chances = {"color_probability": color_probability, "mirror": mirror, "rot90": rot90, "blur": blur}
        chances["face_size_probability"] = face_size_probability
        for name, value in chances.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be a probability in [0, 1]. Received: {name}={value}")
        for name, value in (("brightness", brightness), ("rotation", rotation), ("min_face", min_face)):
            if not value >= 0:
                raise ValueError(f"`{name}` must be at least 0. Received: {name}={value}")
        for name, value in (("contrast", contrast), ("saturation", saturation)):
            if len(value) != 2 or not 0 <= value[0] <= value[1]:
                raise ValueError(f"`{name}` must be a range of factors (low, high). Received: {name}={value}")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"`hue` must be in [0, 0.5] turns. Received: hue={hue}")
        if image_size < 1:
            raise ValueError(f"`image_size` must be at least 1. Received: image_size={image_size}")
        if crop_sides is not None and (not len(crop_sides) or min(crop_sides) <= 0):
            raise ValueError(f"`crop_sides` must be numbers above 0, or None. Received: crop_sides={crop_sides}")
        if face_sizes is not None and (len(face_sizes) != 2 or not 0 < face_sizes[0] <= face_sizes[1]):
            raise ValueError(
                f"`face_sizes` must be (smallest, largest) above 0, or None. Received: face_sizes={face_sizes}"
            )
        if face_sizes is not None and crop_sides is None:
            raise ValueError("`face_sizes` needs `crop_sides`, which limit the size of the crop")
        if not interpolations or not set(interpolations) <= set(METHODS):
            raise ValueError(f"`interpolations` must be of {METHODS}. Received: interpolations={interpolations}")
        if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
            raise ValueError(f"`fill` must be three levels from 0 to 255. Received: fill={fill}")
        self.image_size = int(image_size)
        self.crop_sides = crop_sides and tuple(crop_sides)
        self.colors: dict[str, Any] = {"brightness": brightness, "hue": hue}
        self.colors |= {"contrast": contrast, "saturation": saturation}
        self.color_probability = color_probability
        self.interpolations = tuple(interpolations)
        self.mirror, self.rot90, self.rotation = mirror, rot90, rotation
        self.min_face = min_face
        self.face_sizes = None if face_sizes is None else tuple(face_sizes)
        self.face_size_probability = face_size_probability
        self.blur = blur
        self.fill = tuple(round(level) for level in fill)
        self.reduced_decode = reduced_decode
        self.fields = (*FACE_FIELDS, *fields)
        self._scale: dict[str, Any] = {"image_size": self.image_size, "reduced_decode": reduced_decode}

    def __call__(self, example: Faces, seed: tf.Tensor) -> tuple[tf.Tensor, Faces]:
        """Augment one photo.

        Args:
            example: dict as `parse_example` gives, with the pixels `image` uint8 `[H, W, 3]` or without: then only the
                part that the crop shows is decoded from `encoded`. It is not changed.
            seed: int32 or int64 `[2]`. All that is random depends on it alone.

        Returns:
            (image uint8 `[S, S, 3]`, faces: dict of `boxes` float32 `[N, 4]`, `landmarks` float32 `[N, 5, 2]`,
            `visible` int32 `[N, 5]`, `scores` float32 `[N]`, `ignored` int32 `[N]` and the further fields, in pixels of
            the image; N may be 0). Boxes are clipped to the image. A landmark outside keeps its label.

        Raises:
            tf.errors.InvalidArgumentError: the photo can't be decoded.
        """
        if "image" in example:
            height, width = tf.unstack(tf.shape(example["image"])[:2])
            example = {**example, "height": height, "width": width}
        example = {**example, **complete_faces(example, self.fields)}
        square = self.choose(example, seed)
        return self.finish(self.cut(example, square), example, square, seed)

    def choose(self, example: Faces, seed: tf.Tensor) -> tf.Tensor:
        """The square of the photo to show, as `random_square` gives it."""
        size = (example["height"], example["width"])
        if self.crop_sides is None:
            return whole_square(*size, **self._scale)
        boxes = tf.boolean_mask(example["boxes"], example["ignored"] == 0)
        sides, face_sizes = self.crop_sides, self.face_sizes
        first = _seeds(seed)[0]
        if face_sizes is None:
            return random_square(boxes, *size, first, sides=sides, min_face=self.min_face, **self._scale)
        first, second = tf.unstack(tf.random.split(first, 2))
        by_face = tf.random.stateless_uniform([], first) < self.face_size_probability
        ends = min(sides), max(sides)
        return tf.cond(
            by_face & (tf.shape(boxes)[0] > 0),
            lambda: square_for_face(boxes, *size, second, face_sizes=face_sizes, ends=ends, **self._scale),
            lambda: random_square(boxes, *size, first, sides=sides, min_face=self.min_face, **self._scale),
        )

    def cut(self, example: Faces, square: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The part of the photo in that square, as `crop.cut` gives it. Bad bytes can fail this step alone."""
        return cut(example, square, **self._scale)

    def finish(
        self, piece: tuple[tf.Tensor, tf.Tensor], example: Faces, square: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Faces]:
        """What `cut` gave, to (image, faces)."""
        patch, place = piece
        fill = tf.constant(self.fill, tf.uint8)
        faces = {key: example[key] for key in ("boxes", *(each.name for each in self.fields))}
        faces = crop_faces(faces, self.fields, square, image_size=self.image_size, min_face=self.min_face)
        seeds = _seeds(seed)
        draws = tf.random.stateless_uniform([5], seeds[1])
        if self.color_probability:
            patch = distort_colors(patch, seeds[2], probability=self.color_probability, **self.colors)
        index = tf.cast(draws[0] * len(self.interpolations), tf.int32)
        image = resize(fill_around(patch, place, fill), self.image_size, index, self.interpolations)
        if self.blur:
            image = blur(image, seeds[1], self.blur)
        if self.rotation:
            image, faces = rotate(image, faces, self.fields, self.rotation * (2 * draws[1] - 1), fill)
            faces = keep_faces(faces, image_size=self.image_size, min_face=self.min_face)
        if self.rot90:
            quarters = tf.where(draws[2] < self.rot90, 1 + tf.cast(draws[3] * 3, tf.int32), 0)
            image, faces = rotate_quarters(image, faces, self.fields, quarters)
        if self.mirror:
            image, faces = tf.cond(
                draws[4] < self.mirror, lambda: mirror(image, faces, self.fields), lambda: (image, faces)
            )
        labeled = (faces["visible"] != NOT_LABELED)[..., None]
        return image, {**faces, "landmarks": tf.where(labeled, faces["landmarks"], 0.0)}


def plain(
    image_size: int,
    *,
    min_face: float = 0.0,
    fill: Sequence[int] = (123, 117, 104),
    reduced_decode: bool = True,
    fields: Sequence[FaceField] = (),
) -> Augmentation:
    """An `Augmentation` with nothing random: the whole photo at the top left of the square, for validation."""
    return Augmentation(
        image_size,
        crop_sides=None,
        color_probability=0.0,
        interpolations=("bilinear",),
        mirror=0.0,
        min_face=min_face,
        fill=fill,
        reduced_decode=reduced_decode,
        fields=fields,
    )


METHODS = [*INTERPOLATIONS, "lanczos5", "gaussian", "mitchellcubic"]


def _seeds(seed):
    return tf.random.split(tf.cast(seed, tf.int64), 3)  # an int32 seed of the same value would split otherwise
