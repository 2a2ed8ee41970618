"""A face cut out by its box, as it is or turned until the eyes are level.

What recognition networks of the ArcFace kind want is `alignment.align`; this is the looser cut that deepface and
retina-face give.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image


def crop_box(image: np.ndarray, box: Sequence[float], expand: float = 0.0) -> np.ndarray:
    """The part of a photo inside a box.

    Args:
        image: uint8 array `[H, W, 3]`.
        box: four numbers, `xyxy` pixels; cut at the photo's edges.
        expand: float, at least 0: the part of its sides by which the box grows, half on each side.

    Returns:
        uint8 array `[h, w, 3]`, of at least one pixel.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, expand)
    return image[y1:y2, x1:x2].copy()


def crop_level(image: np.ndarray, box: Sequence[float], landmarks: np.ndarray, expand: float = 0.0) -> np.ndarray:
    """The same size of cut, but turned around the box's centre so that the eyes are level.

    Args:
        image, box, expand: as in `crop_box`.
        landmarks: float array `[5, 2]` of the face, in the order of `Detections`.

    Returns:
        uint8 array `[h, w, 3]`. What lies outside the photo is black.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, expand)
    width, height = x2 - x1, y2 - y1
    across, down = np.asarray(landmarks[1], np.float64) - np.asarray(landmarks[0], np.float64)
    angle = math.atan2(down, across)
    cos, sin = math.cos(angle), math.sin(angle)
    # Pillow asks where each point of the crop comes from: turned around the crop's centre, moved to the box's.
    left = (x1 + x2) / 2 - cos * width / 2 + sin * height / 2
    top = (y1 + y2) / 2 - sin * width / 2 - cos * height / 2
    matrix = tuple(round(value, 9) for value in (cos, -sin, left, sin, cos, top))
    turned = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
    )
    return np.asarray(turned)


def whole_pixels(box: Sequence[float], shape: tuple[int, ...], expand: float = 0.0) -> tuple[int, int, int, int]:
    """A box in whole pixels of the photo, truncated as the tools of this field do, never empty.

    Args:
        box: four numbers, `xyxy` pixels.
        shape: of the photo, height and width first.
        expand: as in `crop_box`.

    Returns:
        x1, y1, x2, y2: ints with 0 <= x1 < x2 <= width, likewise y.
    """
    height, width = shape[:2]
    x1, y1, x2, y2 = (float(value) for value in box)
    grow_x, grow_y = expand * (x2 - x1) / 2, expand * (y2 - y1) / 2
    left = min(max(0, math.floor(x1 - grow_x)), width - 1)
    top = min(max(0, math.floor(y1 - grow_y)), height - 1)
    right = min(max(left + 1, math.floor(x2 + grow_x)), width)
    bottom = min(max(top + 1, math.floor(y2 + grow_y)), height)
    return left, top, right, bottom
