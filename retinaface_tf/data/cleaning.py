"""Check photos and labels before training, without TensorFlow: every problem is reported, nothing changed silently."""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from retinaface_tf.annotations.annotations import FLAGS
from retinaface_tf.common.files import read_bytes
from retinaface_tf.common.types import MIRRORED_LANDMARKS, NOT_LABELED

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


# What tf.io.decode_image reads; everything else would stop a training run.
DECODABLE = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
ORIENTATION_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class PhotoError(ValueError):
    """A photo that can't be trained on. `kind` is one of the problems in `cleaning.py`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class PhotoFile:
    """A readable photo.

    Attributes:
        encoded: the file's bytes.
        format: "jpeg", "png", "gif", "bmp" or "webp".
        width, height: of the stored pixels, before EXIF orientation.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        sha256: hex digest of `encoded`.
    """

    encoded: bytes
    format: str
    width: int
    height: int
    orientation: int
    sha256: str


def read_photo(path: Path) -> PhotoFile:
    """Read a photo's bytes and its header; the pixels are not looked at (`example.check_decodes` does that).

    Raises:
        PhotoError: missing, unreadable, no image, or in a format that training can't decode.
    """
    try:
        encoded = read_bytes(path)
    except FileNotFoundError:
        raise PhotoError("missing_photo", "no such file") from None
    except ValueError:  # a NUL character
        raise PhotoError("missing_photo", "no file can have this name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise PhotoError("missing_photo", "no file can have this name") from None
        raise PhotoError("corrupt_photo", f"can't be read ({error.strerror})") from None
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            name, (width, height) = image.format, image.size
            orientation = _orientation(image)
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = "not an image" if "cannot identify" in str(error) else " ".join(str(error).split()) or "damaged"
        raise PhotoError("corrupt_photo", f"can't be decoded ({reason}, {len(encoded)} bytes)") from None
    if name not in DECODABLE:
        raise PhotoError("unsupported_format", f"{name}: training decodes {', '.join(sorted(set(DECODABLE.values())))}")
    return PhotoFile(encoded, DECODABLE[name], width, height, orientation, hashlib.sha256(encoded).hexdigest())


def _orientation(image):
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to lose the photo
        return 1
    return value if value in range(1, 9) else 1


# Problem -> what is done about it.
PROBLEMS = {
    "missing_photo": "photo left out",
    "corrupt_photo": "photo left out",
    "unsupported_format": "photo left out",
    "size_differs": "photo left out",
    "no_area": "face left out",
    "outside": "face left out",
    "invalid": "face left out",
    "clipped": "box clipped to the photo",
    "landmark_far_off": "landmarks of the face left out",
}
INVALID = FLAGS.index("invalid")
MIRRORED = (2, 4, 5, 7)  # EXIF orientations with a reflection


class Problem(NamedTuple):
    """One thing wrong: the photo's name, a key of `PROBLEMS`, and a description."""

    photo: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.photo}: {self.kind} ({self.detail})"


def clean(
    annotations: Annotations, photo: PhotoFile, *, labels: str = "stored", drop_invalid: bool = False
) -> tuple[Annotations | None, list[Problem]]:
    """The checked annotations of one photo, in pixels of the stored file.

    Args:
        annotations: `Annotations` of one photo.
        photo: `PhotoFile` of it.
        labels: "stored" if the labels are in pixels as stored, "upright" if they were drawn on the photo after its EXIF
            orientation was applied.
        drop_invalid: whether faces that WIDER FACE flags as invalid are left out.

    Returns:
        (`Annotations`, or None if the photo is left out; list of `Problem`).
    """
    turned = labels == "upright" and photo.orientation in SIDEWAYS
    width, height = (photo.height, photo.width) if turned else (photo.width, photo.height)
    claim = tuple(annotations.sizes[0].tolist())
    if claim not in ((0, 0), (width, height)):
        claimed = "{}x{}".format(*claim)
        hint = ""
        if photo.orientation in SIDEWAYS and claim == (height, width):
            hint = f"; EXIF orientation is {photo.orientation}: were the labels drawn upright?"
        detail = f"the annotation says {claimed} pixels, the file has {width}x{height}{hint}"
        return None, [Problem(annotations.files[0], "size_differs", detail)]
    annotations = annotations.to_pixels({annotations.names[0]: (width, height)})
    if labels == "upright":
        annotations = _to_stored(annotations, photo)
    return _clean_faces(annotations, photo.width, photo.height, drop_invalid)


def _clean_faces(annotations, width, height, drop_invalid):
    boxes = annotations.boxes
    inside = np.clip(boxes, 0, np.array([width, height, width, height], np.float64))
    sides = boxes[:, 2:] - boxes[:, :2]
    no_area = ~(sides > 0).all(-1)
    outside = ~no_area & ~(inside[:, 2:] > inside[:, :2]).all(-1)
    face = ~annotations.ignore  # ignore regions without area in the photo are left out without a word
    invalid = face & ~no_area & ~outside & drop_invalid & (annotations.flags[:, INVALID] == 1)
    kept = ~(no_area | outside | invalid)
    clipped = face & kept & (boxes != inside).any(-1)
    # A face cut by the photo's edge has points beyond its box, but never a whole box away.
    low, high = (boxes[:, :2] - sides)[:, None], (boxes[:, 2:] + sides)[:, None]
    away = ((annotations.landmarks < low) | (annotations.landmarks > high)).any(-1) & (
        annotations.visible != NOT_LABELED
    )
    far_off = face & kept & away.any(-1)
    found = {
        "no_area": no_area,
        "outside": outside,
        "invalid": invalid,
        "clipped": clipped,
        "landmark_far_off": far_off,
    }
    problems = [
        Problem(annotations.files[0], kind, f"face {number + 1}: {_written(boxes[number])} of {width}x{height}")
        for number in np.flatnonzero((~kept | clipped | far_off) & face)
        for kind, faces in found.items()
        if faces[number]
    ]
    visible = np.where((far_off | ~face)[:, None], NOT_LABELED, annotations.visible)
    landmarks = np.where((visible == NOT_LABELED)[..., None], 0.0, annotations.landmarks)
    return annotations.replace(boxes=inside, landmarks=landmarks, visible=visible).select(kept), problems


def _written(box):
    return "x {:g} y {:g} w {:g} h {:g}".format(*box[:2], *(box[2:] - box[:2]))


def _to_stored(annotations, photo):
    """Boxes and landmarks of the upright photo, in pixels as stored."""
    boxes = annotations.boxes.reshape(-1, 2, 2)
    corners = _points_to_stored(boxes, photo)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=-1)
    # A box without area stays recognizable as such, since turning keeps both sides' lengths; a negative side doesn't.
    boxes = np.where((annotations.boxes[:, 2:] < annotations.boxes[:, :2]).any(-1, keepdims=True), 0.0, boxes)
    landmarks, visible = _points_to_stored(annotations.landmarks, photo), annotations.visible
    if photo.orientation in MIRRORED:  # left as seen upright is right as seen in the stored pixels
        landmarks, visible = landmarks[:, MIRRORED_LANDMARKS], visible[:, MIRRORED_LANDMARKS]
    return annotations.replace(boxes=boxes, landmarks=landmarks, visible=visible)


def _points_to_stored(points, photo):
    x, y, width, height = points[..., 0], points[..., 1], photo.width, photo.height
    stored = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (y, height - x),
        7: (width - y, height - x),
        8: (width - y, x),
    }[photo.orientation]
    return np.stack(stored, axis=-1)
