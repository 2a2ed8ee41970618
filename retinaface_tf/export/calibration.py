"""Photos from which an int8 export learns how large each number becomes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinaface_tf.common.files import find_photos
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.image.letterbox import fit
from retinaface_tf.image.loading import ImageError, load_image

MOST_PHOTOS = 200


def calibration_photos(
    source: PathLike | Sequence[ImageSource] | None, size: tuple[int, int], fill: Sequence[int]
) -> list[np.ndarray]:
    """Photos as the artifact will see them: decoded, turned, and on its canvas.

    Args:
        source: folder, searched with all below it, or list of what `load_image` takes. Of more than `MOST_PHOTOS` so
            many are taken, evenly spread.
        size: (height, width), pixels.
        fill: three ints, the colour beside photos that are smaller.

    Returns:
        list of uint8 arrays `[height, width, 3]`, not empty. Photos of a folder that can't be decoded are left out.

    Raises:
        ValueError: if nothing was given, or the folder holds no photo that can be used, or is no folder; for the first
            of a list that can't be used.
    """
    require_photos(source)
    if isinstance(source, (list, tuple)):
        photos = [load_image(one) for one in source[:: -(-len(source) // MOST_PHOTOS) or 1]]
    else:
        photos = _of_folder(source)
    if not photos:
        raise ValueError(f"no photo to calibrate with in {source}. Expected some dozens, of the kind that will be used")
    return [fit(photo, size, fill).canvas for photo in photos]


def require_photos(source: PathLike | Sequence[ImageSource] | None) -> None:
    """Raise as `calibration_photos` where nothing was given, or what was given is no folder or has no photo in it."""
    if source is None:
        raise ValueError("int8 learns the range of every number from photos like yours: --calibration DIR is missing")
    if not isinstance(source, (str, os.PathLike)):
        count = len(source)
    elif not Path(source).is_dir():
        raise ValueError(f"`calibration` must be a folder of photos. Received: {source}")
    else:
        count = len(find_photos([str(source)])[0])
    if not count:
        raise ValueError(f"no photo to calibrate with in {source}. Expected some dozens, of the kind that will be used")


def _of_folder(folder):
    paths = [path for path, _ in find_photos([str(folder)])[0]]
    photos = []
    for path in paths[:: -(-len(paths) // MOST_PHOTOS) or 1]:
        try:
            photos.append(load_image(path))
        except ImageError:
            continue
    return photos
