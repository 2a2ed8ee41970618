"""Letterbox a photo on a canvas, and restore coordinates to the photo. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retinaface_tf.common.types import Resize

AUTO_LONG_SIDE = 640  # of "auto": at this size the published networks are measured and most faces of small photos found


@dataclass(frozen=True)
class Letterbox:
    """Position of a photo on its canvas: `canvas = photo * scale + offset`, for x and for y.

    Attributes:
        canvas: uint8 array `[H, W, 3]`.
        window: float32 `[4]`, `xyxy` canvas pixels: the part that is photo.
        scale, offset: float32 `[2]`, x and y.
    """

    canvas: np.ndarray
    window: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def restore(self, points: np.ndarray) -> np.ndarray:
        """Canvas pixels `[..., 2]` back to photo pixels, float32."""
        return ((points - self.offset) / self.scale).astype(np.float32)

    def restore_faces(self, faces: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is in pixels of what is known of faces: "boxes" `[..., 4]`, "landmarks" and, if there, "vertices"."""
        boxes = faces["boxes"]
        restored = {
            "boxes": self.restore(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape),
            "landmarks": self.restore(faces["landmarks"]),
        }
        if "vertices" in faces:
            vertices = faces["vertices"]
            depth = (vertices[..., 2:] / self.scale.mean()).astype(np.float32)
            restored["vertices"] = np.concatenate([self.restore(vertices[..., :2]), depth], axis=-1)
        return restored


def letterbox(
    image: np.ndarray,
    fill: Sequence[int],
    resize: Resize = None,
    margin: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Letterbox:
    """Resize a photo for the network, with an optional border.

    Args:
        image: uint8 array `[H, W, 3]`.
        fill: three ints, the color around the photo; the network's mean pixel disturbs it least.
        resize: `None` to keep the size; "auto" to enlarge a photo whose long side is under `AUTO_LONG_SIDE` to it; or
            (short, long): the short side becomes `short` pixels, unless the long one would then be over `long`, which
            it becomes instead.
        margin: float. Border on each side, as a part of the resized photo's sides.
        size: (height, width) of the photo, where `image` was decoded at a smaller size; `None` for that of `image`.

    Returns:
        `Letterbox`; its canvas is `image` itself where nothing had to be done.
    """
    height, width = image.shape[:2] if size is None else size
    new_height, new_width = resized_size(height, width, resize)
    if (new_height, new_width) != image.shape[:2]:
        picture = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        image = np.asarray(picture)
    top, left = round(new_height * margin), round(new_width * margin)
    return Letterbox(
        _paint(image, (new_height + 2 * top, new_width + 2 * left), top, left, fill),
        window=np.array([left, top, left + new_width, top + new_height], np.float32),
        scale=np.array([new_width / width, new_height / height], np.float32),
        offset=np.array([left, top], np.float32),
    )


def fit(image: np.ndarray, size: tuple[int, int], fill: Sequence[int]) -> Letterbox:
    """A photo on a canvas of (height, width): shrunk if it is too large, never enlarged, in the upper left corner.

    There the cells of the network's maps lie on the photo as they do without the canvas. The color `fill` is beside
    it. The canvas is `image` itself where nothing had to be done.
    """
    (height, width), (canvas_height, canvas_width) = image.shape[:2], size
    scale = min(1.0, canvas_height / height, canvas_width / width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if scale < 1:
        picture = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        image = np.asarray(picture)
    return Letterbox(
        _paint(image, (canvas_height, canvas_width), 0, 0, fill),
        window=np.array([0, 0, new_width, new_height], np.float32),
        scale=np.array([new_width / width, new_height / height], np.float32),
        offset=np.zeros(2, np.float32),
    )


def _paint(image, size, top, left, fill):
    """A canvas of (height, width) with the image on it; the image itself where that is all of it."""
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = np.asarray(fill, np.uint8)
    canvas[top : top + height, left : left + width] = image
    return canvas


def resized_size(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """(height, width) after `resize`, as `letterbox` takes it; each at least 1."""
    if resize is None:
        return height, width
    if resize == "auto":
        scale = max(1.0, AUTO_LONG_SIDE / max(height, width))
    else:
        short, long = resize
        scale = min(short / min(height, width), long / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
