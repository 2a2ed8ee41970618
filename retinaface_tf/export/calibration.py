"""Photos on which an int8 export measures the range of every tensor. No TensorFlow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinaface_tf.common.files import find_photos
from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.image.letterbox import fit
from retinaface_tf.image.loading import ImageError, load_image

MOST_PHOTOS, LEAST_PHOTOS = 200, 8
ANY_SIZE = (640, 640)  # canvas of an artifact for any size: height and width


@dataclass(frozen=True)
class CalibrationPhotos:
    """Photos as the artifact will see them.

    Attributes:
        photos: list of uint8 arrays `[H, W, 3]`, all of one size.
        found: int. Photos that were there.
        unreadable: list of str, one line for each that was tried and can't be decoded.
        notes: list of str, one line for each folder in which other files were passed over.
    """

    photos: list[np.ndarray]
    found: int
    unreadable: list[str]
    notes: list[str]

    def __str__(self) -> str:
        bad = f"; {len(self.unreadable)} can't be read, such as {self.unreadable[0]}" if self.unreadable else ""
        return f"calibrated on {len(self.photos)} of {pluralize(self.found, 'photo')}{bad}"


def read_calibration_photos(
    source: PathLike | Sequence[ImageSource] | None, size: tuple[int, int] | None, fill: Sequence[int]
) -> CalibrationPhotos:
    """Read calibration photos, turned upright and on the artifact's canvas.

    Args:
        source: folder, searched with all below it, or list of what `load_image` takes. Of more than `MOST_PHOTOS` that
            many are taken, evenly spread.
        size: (height, width) of the artifact, pixels, or `None` for any.
        fill: three ints, the color beside photos that are smaller.

    Raises:
        ValueError: if nothing was given, that is no folder, or fewer than `LEAST_PHOTOS` can be used; for the first of
            a list that can't be decoded.
    """
    paths, notes = require_photos(source)
    chosen, photos, unreadable = paths[:: -(-len(paths) // MOST_PHOTOS)], [], []
    for one in chosen:
        try:
            photos.append(load_image(one))
        except ImageError as error:
            if isinstance(source, (list, tuple)):
                raise
            unreadable.append(str(error))
    if len(photos) < LEAST_PHOTOS:
        first = f", such as {unreadable[0]}" if unreadable else ""
        raise ValueError(
            f"int8 needs at least {LEAST_PHOTOS} photos to calibrate with, better some dozens. {source}: "
            f"{pluralize(len(photos), 'photo')} of {len(paths)} can be used{first}"
        )
    return CalibrationPhotos(
        [fit(photo, size or ANY_SIZE, fill).canvas for photo in photos], len(paths), unreadable, notes
    )


def require_photos(source: PathLike | Sequence[ImageSource] | None) -> tuple[list[ImageSource], list[str]]:
    """The photos of a folder or list, at least `LEAST_PHOTOS`, and notes. Raises as `read_calibration_photos`."""
    if source is None:
        raise ValueError("int8 measures its ranges on photos like yours: --calibration DIR is missing")
    notes: list[str] = []
    if not isinstance(source, (str, os.PathLike)):
        photos, name = list[ImageSource](source), "the list"
    elif not Path(source).is_dir():
        raise ValueError(f"`calibration` must be a folder of photos. Received: {source}")
    else:
        found, _, notes = find_photos([str(source)])
        photos, name = list[ImageSource](path for path, _ in found), str(source)
    if len(photos) < LEAST_PHOTOS:
        raise ValueError(
            f"int8 needs at least {LEAST_PHOTOS} photos to calibrate with, better some dozens. {name}: "
            f"{pluralize(len(photos), 'photo')}"
        )
    return photos, notes
