"""A face cut out by its box, as it is or turned until the eyes are level.

What recognition networks of the ArcFace kind want is `alignment.align`; this is the looser cut that deepface and
retina-face give, with deepface's arithmetic: whole pixels by truncation, turned around the pixel in the box's middle.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

BORDER = 0.5  # of the photo's sides: so much black deepface lays around a photo before it turns faces


def crop_box(image: np.ndarray, box: Sequence[float], percent: int = 0) -> np.ndarray:
    """The part of a photo inside a box.

    Args:
        image: uint8 array `[H, W, 3]`.
        box: four numbers, `xyxy` pixels; cut at the photo's edges.
        percent: int, at least 0: of its sides, by which the box grows, half on each side.

    Returns:
        uint8 array `[h, w, 3]`, of at least one pixel.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, percent)
    return image[y1:y2, x1:x2].copy()


def crop_level(
    image: np.ndarray, box: Sequence[float], landmarks: np.ndarray, percent: int = 0, border: float = 0.0
) -> np.ndarray:
    """The same size of cut, but turned around the box's middle so that the eyes are level.

    Args:
        image, box, percent: as in `crop_box`.
        landmarks: float array `[5, 2]` of the face, in the order of `Detections`.
        border: as in `whole_pixels`.

    Returns:
        uint8 array `[h, w, 3]`. What lies outside the photo is black.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, percent, border)
    width, height = x2 - x1, y2 - y1
    across, down = np.asarray(landmarks[1], np.float64) - np.asarray(landmarks[0], np.float64)
    angle = math.atan2(down, across)
    cos, sin = math.cos(angle), math.sin(angle)
    # Pillow asks where each point of the crop comes from. Fixed is the centre of the pixel in the middle.
    x, y = width // 2 + 0.5, height // 2 + 0.5
    left, top = x1 + x - cos * x + sin * y, y1 + y - sin * x - cos * y
    matrix = tuple(round(value, 9) for value in (cos, -sin, left, sin, cos, top))
    turned = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
    )
    return np.asarray(turned)


def whole_pixels(
    box: Sequence[float], shape: tuple[int, ...], percent: int = 0, border: float = 0.0
) -> tuple[int, int, int, int]:
    """A box in whole pixels of the photo, truncated and grown as deepface and retina-face do, never empty.

    Args:
        box: four numbers, `xyxy` pixels.
        shape: of the photo, height and width first.
        percent: as in `crop_box`.
        border: float, the part of the photo's sides by which the box may reach beyond it on each side.

    Returns:
        x1, y1, x2, y2: ints with x1 < x2 and y1 < y2, inside the photo and its border.
    """
    (x1, x2), (y1, y2) = (
        _grown(int(box[axis]), int(box[axis + 2]), percent, -int(border * side), side + int(border * side))
        for axis, side in ((0, shape[1]), (1, shape[0]))
    )
    return x1, y1, x2, y2


def _grown(low, high, percent, first, end):
    """(low, high) of a side of a box, grown by so many percent and cut to [first, end]."""
    if percent:
        side = high - low
        grown = side + int(side * percent / 100)
        low = max(first, low - int((grown - side) / 2))  # what is cut here is not lost: it is added at the other end
        high = low + grown
    low = min(max(first, low), end - 1)
    return low, max(min(end, high), low + 1)
