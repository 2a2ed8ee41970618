"""What a photo may have gone through: turned, compressed, noisy, smaller; and the way back to the photo's pixels.

A `Corruption` is used like a protocol: `views` shows the corrupted photo, `merge` brings its detections back.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.evaluation.protocols import rescale


@dataclass(frozen=True)
class Corruption:
    """One kind at one strength.

    Attributes:
        kind: `none`, `rotation` (degrees counter-clockwise, a multiple of 90), `jpeg` (quality 1 to 95), `noise`
            (standard deviation in grey levels of 255) or `scale` (factor on both sides).
        strength: Number.
    """

    kind: str
    strength: float = 0

    num_views = 1

    def __post_init__(self) -> None:
        allowed = {
            "none": self.strength == 0,
            "rotation": self.strength in (90, 180, 270),
            "jpeg": 1 <= self.strength <= 95,
            "noise": self.strength > 0,
            "scale": self.strength > 0,
        }
        if not allowed.get(self.kind, False):
            raise ValueError(f"no corruption {self.kind!r} of strength {self.strength}. Kinds: {list(allowed)}")

    @property
    def name(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind} {self.strength:g}"

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """List of the one corrupted image, uint8 `[h, w, 3]`."""
        if self.kind == "rotation":
            return [np.ascontiguousarray(np.rot90(image, int(self.strength) // 90))]
        if self.kind == "jpeg":
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=int(self.strength))
            return [np.asarray(Image.open(file).convert("RGB"))]
        if self.kind == "noise":
            # Seeded by the photo: the same noise in every run, batch and order.
            rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).data))
            noisy = image + rng.normal(0, self.strength, image.shape)
            return [np.clip(np.round(noisy), 0, 255).astype(np.uint8)]
        if self.kind == "scale":
            height, width = image.shape[:2]
            size = max(1, round(width * self.strength)), max(1, round(height * self.strength))
            return [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))]
        return [image]

    def merge(
        self, image_shape: tuple[int, ...], view_shapes: Sequence[tuple[int, ...]], found: Sequence[Any]
    ) -> ImageDetections:
        """Detections in the photo's pixels, scores falling; landmarks keep the names they have on the face."""
        (shape,), (each,) = view_shapes, found
        if self.kind == "rotation":
            each = _turn_back(each, image_shape, int(self.strength) // 90)
        else:
            each = rescale(each, image_shape[1] / shape[1], image_shape[0] / shape[0])
        order = np.argsort(-each.scores, kind="stable")
        points = None if each.landmarks is None else each.landmarks[order]
        return ImageDetections(each.boxes[order], each.scores[order], points)


CORRUPTIONS = (
    Corruption("none"),
    *(Corruption("rotation", degrees) for degrees in (90, 180, 270)),
    *(Corruption("jpeg", quality) for quality in (50, 20, 10, 5)),
    *(Corruption("noise", sigma) for sigma in (10, 20, 40)),
    *(Corruption("scale", factor) for factor in (0.75, 0.5, 0.25)),
)


def _turn_back(detections, image_shape, quarters):
    """Undo `np.rot90(image, quarters)`, which turns counter-clockwise: x, y of the view to x, y of the photo."""
    height, width = image_shape[:2]

    def back(points):
        x, y = points[..., 0], points[..., 1]
        if quarters == 1:
            x, y = width - y, x
        elif quarters == 2:
            x, y = width - x, height - y
        elif quarters == 3:
            x, y = y, height - x
        return np.stack([x, y], axis=-1)

    corners = back(np.asarray(detections.boxes, np.float64).reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    points = detections.landmarks
    points = None if points is None else back(np.asarray(points, np.float64))
    return ImageDetections(boxes, np.asarray(detections.scores, np.float64), points)
