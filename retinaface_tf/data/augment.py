"""One labeled photo in, one training image out: random, and the same again for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from retinaface_tf.common.landmarks import NOT_LABELED
from retinaface_tf.data.crop import (
    CROP_SIDES,
    crop_faces,
    cut,
    keep_faces,
    random_square,
    square_for_face,
    whole_square,
)
from retinaface_tf.data.fields import FACE_FIELDS, FaceField, Faces, complete_faces
from retinaface_tf.data.transforms import (
    INTERPOLATIONS,
    blur,
    distort_colors,
    fill_around,
    mirror,
    resize,
    rotate,
    rotate_quarters,
)


class Augmentation:
    """Crop, colour, fill, resize, turn, mirror: `augmentation(example, seed)`, in eager mode or in `tf.data`.

    The defaults are the recipe of Pytorch_Retinaface.

    Args:
        image_size: int, side of the result.
        crop_sides: sides of the random square as parts of the photo's short side; above 1 it reaches beyond the photo.
            `None` takes the whole photo.
        brightness, contrast, saturation, hue, colour_probability: see `distort_colors`.
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
        colour_probability: float = 0.5,
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
        chances = {"colour_probability": colour_probability, "mirror": mirror, "rot90": rot90, "blur": blur}
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
            raise ValueError("`face_sizes` needs `crop_sides`, whose ends limit its squares")
        if not interpolations or not set(interpolations) <= set(METHODS):
            raise ValueError(f"`interpolations` must be of {METHODS}. Received: interpolations={interpolations}")
        if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
            raise ValueError(f"`fill` must be three levels from 0 to 255. Received: fill={fill}")
        self.image_size = int(image_size)
        self.crop_sides = crop_sides and tuple(crop_sides)
        self.colours: dict[str, Any] = {"brightness": brightness, "hue": hue}
        self.colours |= {"contrast": contrast, "saturation": saturation}
        self.colour_probability = colour_probability
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
        if self.colour_probability:
            patch = distort_colors(patch, seeds[2], probability=self.colour_probability, **self.colours)
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
        colour_probability=0.0,
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
