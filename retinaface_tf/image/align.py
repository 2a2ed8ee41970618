"""Crop a face by its box, or align it by its landmarks as recognition networks expect it."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from retinaface_tf.common.types import ImageSource
from retinaface_tf.image.loading import load_image

# Where ArcFace's training crops have the five landmarks, in a picture of 112 x 112 pixels whose pixel centers are at
# whole numbers: the public template of insightface (arXiv 1801.07698).
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
TEMPLATE_SIZE = 112


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring points `[N, 2]` nearest to others, in least squares: float64 `[2, 3]`.

    With x' = a x - b y + c and y' = b x + a y + d the problem is linear; `numpy.linalg.lstsq` solves it. For a
    similarity without reflection this is Umeyama's solution (IEEE PAMI 13(4), 1991). ValueError if all points coincide.
    """
    x, y = np.asarray(source, np.float64).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    (a, b, c, d), _, rank, _ = np.linalg.lstsq(rows, np.asarray(target, np.float64).T.reshape(-1))
    if rank < 4:
        raise ValueError("landmarks that all coincide can't be aligned")
    return np.array([[a, -b, c], [b, a, d]])


FARTHEST = 1e9  # pixels
LARGEST_CROP = 8192  # pixels


def align(image: ImageSource, landmarks: np.ndarray, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """Cut out faces with eyes, nose and mouth at the positions that ArcFace expects.

    Args:
        image: path, bytes, PIL image or array; see `load_image`.
        landmarks: float array `[N, 5, 2]` or `[5, 2]`, as in `Detections.landmarks`.
        size: int. Side of the crops in pixels.

    Returns:
        uint8 array `[N, size, size, 3]`, or `[size, size, 3]` for the landmarks of one face. Pixels outside the photo
        are black.

    Raises:
        ValueError: if `landmarks` has another shape, or all landmarks of a face are equal.
        ImageError: if the image can't be read.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape[-2:] != (5, 2) or landmarks.ndim not in (2, 3):
        raise ValueError(f"`landmarks` must be [N, 5, 2] or [5, 2]. Received: shape {list(landmarks.shape)}")
    if not (np.abs(landmarks) <= FARTHEST).all():  # the solver does not return from infinity
        raise ValueError(f"`landmarks` must be finite numbers of at most {FARTHEST:g} pixels")
    if not isinstance(size, int | np.integer) or not 1 <= size <= LARGEST_CROP:
        raise ValueError(f"`size` must be an integer from 1 to {LARGEST_CROP}. Received: size={size!r}")
    picture = Image.fromarray(load_image(image))
    crops = [_align_one(picture, points, size) for points in landmarks.reshape(-1, 5, 2)]
    if landmarks.ndim == 2:
        return crops[0]
    return np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)


def _align_one(picture, points, size):
    matrix = np.vstack([similarity_transform(points, ARCFACE_TEMPLATE * (size / TEMPLATE_SIZE)), [0, 0, 1]])
    back = np.linalg.inv(matrix)  # Pillow asks where each pixel of the crop comes from
    # Pillow's pixel centers are at halves, the template's at whole numbers.
    back[:2, 2] += 0.5 - back[:2, :2] @ [0.5, 0.5]
    # Pillow cuts off what it interpolates: the solver's last digits, which differ by machine, would cost a gray level.
    back = np.round(back, 9)
    crop = picture.transform(
        (size, size), Image.Transform.AFFINE, tuple(back[:2].reshape(-1)), resample=Image.Resampling.BILINEAR
    )
    return np.asarray(crop)


BORDER = 0.5  # of the photo's sides: so much black deepface lays around a photo before it turns faces


def crop_box(image: np.ndarray, box: Sequence[float], percent: int = 0) -> np.ndarray:
    """The part of a photo inside a box (`xyxy` pixels), cut at the photo's edges; at least one pixel.

    The box grows by `percent` of its sides, half on each side.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, percent)
    return image[y1:y2, x1:x2].copy()


def crop_level(
    image: np.ndarray, box: Sequence[float], landmarks: np.ndarray, percent: int = 0, border: float = 0.0
) -> np.ndarray:
    """As `crop_box`, but rotated about the center of the box so that the eyes are level; black outside the photo.

    `landmarks` are in the order of `Detections`; `border` is as in `whole_pixels`.
    """
    x1, y1, x2, y2 = whole_pixels(box, image.shape, percent, border)
    width, height = x2 - x1, y2 - y1
    across, down = np.asarray(landmarks[1], np.float64) - np.asarray(landmarks[0], np.float64)
    angle = math.atan2(down, across)
    cos, sin = math.cos(angle), math.sin(angle)
    # Pillow asks where each point of the crop comes from. Fixed is the center of the pixel in the middle.
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

    `border` is the part of the photo's sides by which the box may reach beyond it on each side.
    """
    (x1, x2), (y1, y2) = (
        _grown(int(box[axis]), int(box[axis + 2]), percent, -int(border * side), side + int(border * side))
        for axis, side in ((0, shape[1]), (1, shape[0]))
    )
    return x1, y1, x2, y2


def _grown(low, high, percent, first, end):
    """(low, high) of a side of a box, grown by a percentage and cut to [first, end]."""
    if percent:
        side = high - low
        grown = side + int(side * percent / 100)
        low = max(first, low - int((grown - side) / 2))  # what is cut here is not lost: it is added at the other end
        high = low + grown
    low = min(max(first, low), end - 1)
    return low, max(min(end, high), low + 1)
