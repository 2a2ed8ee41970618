"""Per-face fields of training data: what each is called, its shape, its padding, and what moves and mirrors it.

Every face has a box and the fields of `FACE_FIELDS`. A dense branch hands in further ones: all steps from a shard to a
batch take the fields as a tuple and know nothing else of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from retinaface_tf.common.types import MIRRORED_LANDMARKS, NOT_LABELED

Faces = dict[str, tf.Tensor]


@dataclass(frozen=True)
class FaceField:
    """One value, or array of values, of each face.

    Attributes:
        name: Key in the dict of faces.
        shape: Shape of one face's value.
        dtype: Name of its type.
        padding: Value of faces that only fill up a batch.
        points: Whether the last axis is x and y in pixels, maybe with depth, and moves with the photo.
        mirror: Index of each entry's partner in a mirrored photo, along the first axis of `shape`; None to stay.
        features: What `tf.io.parse_single_example` has to read for it, by name.
        read: Function of (parsed features without `image/`, number of faces, float32 `[2]` width and height) that
            returns the field of all faces, in pixels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    padding: float = 0
    points: bool = False
    mirror: Sequence[int] | None = None
    features: dict[str, Any] = field(default_factory=dict)
    read: Callable[[dict[str, tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor] | None = None


BOXES = FaceField("boxes", (4,))
FACE_FIELDS = (
    FaceField("landmarks", (5, 2), points=True, mirror=MIRRORED_LANDMARKS),
    FaceField("visible", (5,), "int32", NOT_LABELED, mirror=MIRRORED_LANDMARKS),
    FaceField("scores", ()),  # of the labels: 1 by people, less by a teacher
    FaceField("ignored", (), "int32"),  # 1 for an ignore region, which is neither a face nor background
)


def empty_faces(fields: Sequence[FaceField], count: int | tf.Tensor = 0) -> Faces:
    """Faces that are only padding: dict with boxes and all fields."""
    return {each.name: tf.cast(tf.fill([count, *each.shape], each.padding), each.dtype) for each in (BOXES, *fields)}


def complete_faces(example: Faces, fields: Sequence[FaceField]) -> Faces:
    """Boxes and all fields of a parsed example; ignore regions as further faces: what moves faces moves them."""
    count = tf.shape(example["boxes"])[0]
    faces = {"scores": tf.ones([count]), **example, "ignored": tf.zeros([count], tf.int32)}
    names = ("boxes", *(each.name for each in fields))
    parts = [{name: faces[name] for name in names}]
    if "regions" in example:
        regions = tf.shape(example["regions"])[0]
        more = {**empty_faces(fields, regions), "boxes": example["regions"], "ignored": tf.ones([regions], tf.int32)}
        parts.append({name: more[name] for name in names})
    return join_faces(parts)


def join_faces(parts: Sequence[Faces]) -> Faces:
    """Faces of several dicts with the same keys, one after the other."""
    return {key: tf.concat([part[key] for part in parts], axis=0) for key in parts[0]}


def move_faces(faces: Faces, fields: Sequence[FaceField], function: Callable[[tf.Tensor], tf.Tensor]) -> Faces:
    """Faces whose points `function` has moved: x and y to x and y. Depth and boxes stay."""
    return {**faces, **{each.name: _move(faces[each.name], function) for each in fields if each.points}}


def scale_faces(faces: Faces, fields: Sequence[FaceField], corner: tf.Tensor, scale: tf.Tensor | float) -> Faces:
    """Faces in a window's pixels: `corner` (x, y) goes to 0, then all is `scale` times as large, depth too."""
    moved = move_faces(faces, fields, lambda xy: xy - corner)
    points = {each.name: moved[each.name] * scale for each in fields if each.points}
    return {**moved, **points, "boxes": (faces["boxes"] - tf.tile(corner, [2])) * scale}


def mirror_faces(faces: Faces, fields: Sequence[FaceField], width: tf.Tensor) -> Faces:
    """Faces of a mirrored image. The left eye is again the one on the left."""
    left, top, right, bottom = tf.unstack(faces["boxes"], axis=-1)
    swapped = {
        each.name: tf.gather(faces[each.name], each.mirror, axis=1) for each in fields if each.mirror is not None
    }
    boxes = tf.stack([width - right, top, width - left, bottom], axis=-1)
    flipped = {**faces, **swapped, "boxes": boxes}
    return move_faces(flipped, fields, lambda xy: tf.stack([width - xy[..., 0], xy[..., 1]], axis=-1))


def _move(points, function):
    flat = function(points[..., :2])
    return flat if points.shape[-1] == 2 else tf.concat([flat, points[..., 2:]], axis=-1)
