"""Evaluation protocols: the sizes of photos for the detector, and box voting over several sizes.

- `original`: as it is.
- `1600`: short side 1600, long side at most 2150 (the widespread PyTorch version's second setting).
- `vga`: the longer side 640, as in SCRFD's table ("VGA resolution").
- `multiscale`: short sides 500, 800, 1100, 1400 and 1700, long side at most 1.5 times that, each also mirrored, merged
  by box voting at IoU 0.4 (the paper's test setting; the limit on the long side is that of the authors' release).
- `1.5x`, `2x`, `3x`: enlarged by this factor, for sets of small photos. Nothing published uses them.

The detector is any callable; resizing is Pillow's bilinear filter, which averages when it makes an image smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from retinaface_tf.common.types import MIRRORED_LANDMARKS
from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.geometry.overlap import pairwise_iou


@dataclass(frozen=True)
class Protocol:
    """Sizes and merging of an evaluation protocol.

    Attributes:
        name: For messages and files.
        sizes: Tuple of `(short, long)` limits in pixels; `(None, long)` fits the long side; None is the original size.
        factor: Enlargement of the original size.
        mirror: Whether each size is also shown mirrored.
        vote_iou: IoU of box voting over all views, or None for a single view.
    """

    name: str
    sizes: tuple[tuple[int | None, int] | None, ...] = (None,)
    mirror: bool = False
    vote_iou: float | None = None
    factor: float = 1.0

    @property
    def num_views(self) -> int:
        return len(self.sizes) * (2 if self.mirror else 1)

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """The images to detect in: list of uint8 `[h, w, 3]`, each size followed by its mirror image."""
        shown = []
        for size in self.sizes:
            if size is None and self.factor != 1:
                size = (None, round(self.factor * max(image.shape[:2])))
            view = image if size is None else resize(image, *size)
            shown += [view, np.ascontiguousarray(view[:, ::-1])] if self.mirror else [view]
        return shown

    def merge(
        self, image_shape: tuple[int, ...], view_shapes: Sequence[tuple[int, ...]], found: Sequence[Any]
    ) -> ImageDetections:
        """Bring the detections of all views back to the photo, and into one list: `ImageDetections`, scores falling.

        Args:
            image_shape: `(height, width, ...)` of the photo.
            view_shapes: The shapes of what `views` returned.
            found: One detection object a view, in view pixels.
        """
        restored = []
        for index, (shape, each) in enumerate(zip(view_shapes, found, strict=True)):
            each = mirror(each, shape[1]) if self.mirror and index % 2 else each
            restored.append(rescale(each, image_shape[1] / shape[1], image_shape[0] / shape[0]))
        together = concatenate(restored)
        if self.vote_iou is not None:
            return vote(together, iou_threshold=self.vote_iou)
        return by_score(together)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("original"),
        Protocol("1600", sizes=((1600, 2150),)),
        Protocol("vga", sizes=((None, 640),)),
        Protocol(
            "multiscale",
            sizes=tuple((short, short * 3 // 2) for short in (500, 800, 1100, 1400, 1700)),
            mirror=True,
            vote_iou=0.4,
        ),
        *(Protocol(f"{factor:g}x", factor=factor) for factor in (1.5, 2.0, 3.0)),
    )
}


def detect_with(protocol: Protocol, detect: Callable[[np.ndarray], Any], image: np.ndarray) -> ImageDetections:
    """Run a single-image detector on one photo under a protocol: `ImageDetections` in photo pixels."""
    views = protocol.views(image)
    return protocol.merge(image.shape, [view.shape for view in views], [detect(view) for view in views])


def resize(image: np.ndarray, short: int | None, long: int) -> np.ndarray:
    """Resize a uint8 image `[H, W, 3]` so that its short side is `short` and its long side at most `long`.

    With `short` None the long side is exactly `long`. Proportions are kept to the nearest pixel, no side is below 1.
    """
    height, width = image.shape[:2]
    factor = long / max(height, width)
    if short is not None:
        factor = min(factor, short / min(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def mirror(detections: Any, width: float) -> ImageDetections:
    """Detections in a mirrored image of `width` pixels, brought back; edges are mirrored at `x -> width - x`."""
    boxes = np.array(detections.boxes, np.float64).reshape(-1, 4)
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    points = detections.landmarks
    if points is not None:
        points = np.array(points, np.float64)[:, MIRRORED_LANDMARKS]
        points[..., 0] = width - points[..., 0]
    return ImageDetections(boxes, np.asarray(detections.scores, np.float64), points)


def rescale(detections: Any, x_factor: float, y_factor: float) -> ImageDetections:
    """Boxes and landmarks multiplied by one factor for each axis."""
    boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4) * [x_factor, y_factor, x_factor, y_factor]
    points = detections.landmarks
    points = None if points is None else np.asarray(points, np.float64) * [x_factor, y_factor]
    return ImageDetections(boxes, np.asarray(detections.scores, np.float64), points)


def by_score(detections: ImageDetections) -> ImageDetections:
    """The same, the highest score first."""
    order = np.argsort(-detections.scores, kind="stable")
    points = None if detections.landmarks is None else detections.landmarks[order]
    return ImageDetections(detections.boxes[order], detections.scores[order], points)


def concatenate(parts: Sequence[ImageDetections]) -> ImageDetections:
    """One `ImageDetections` from several; landmarks only if all have them."""
    points = [part.landmarks for part in parts if part.landmarks is not None]
    return ImageDetections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate(points) if len(points) == len(parts) else None,
    )


def vote(detections: Any, *, iou_threshold: float = 0.4, max_detections: int = 750) -> ImageDetections:
    """Merge overlapping detections by box voting (Gidaris and Komodakis, arXiv 1505.01749).

    The best remaining detection collects all that overlap it. Together they become one, with the score of the best and
    the score-weighted mean of the boxes and landmarks. A box without neighbors stays as it is: the authors' release
    drops those, and with them every face that only one scale sees.

    Args:
        detections: Anything with `boxes` `[N, 4]`, `scores` `[N]` (not negative) and `landmarks` `[N, 5, 2]` or None.
        iou_threshold: Float in (0, 1]: at and above it two boxes are the same face.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"`iou_threshold` must be in (0, 1]. Received: iou_threshold={iou_threshold}")
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    scores = np.asarray(detections.scores, np.float64)[order]
    boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)[order]
    points = None if detections.landmarks is None else np.asarray(detections.landmarks, np.float64)[order]
    voted_boxes, voted_scores, voted_points = [], [], []
    left = np.arange(len(scores))
    while len(left) and len(voted_scores) < max_detections:
        same = pairwise_iou(boxes[left[:1]], boxes[left])[0] >= iou_threshold
        same[0] = True  # a box without area has no overlap even with itself
        group, left = left[same], left[~same]
        # Scores of exactly 0 have no say, unless nobody has.
        weights = scores[group] / scores[group[0]] if scores[group[0]] > 0 else np.ones(len(group))
        voted_boxes.append(np.average(boxes[group], axis=0, weights=weights))
        voted_scores.append(scores[group[0]])
        if points is not None:
            voted_points.append(np.average(points[group], axis=0, weights=weights))
    return ImageDetections(
        np.array(voted_boxes).reshape(-1, 4),
        np.array(voted_scores),
        None if points is None else np.array(voted_points).reshape(-1, 5, 2),
    )
