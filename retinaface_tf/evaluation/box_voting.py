"""Many looks at one photo, one list of faces: overlapping boxes are averaged by score."""

from typing import Any

import numpy as np

from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.geometry.overlap import pairwise_iou


def vote(detections: Any, *, iou_threshold: float = 0.4, max_detections: int = 750) -> ImageDetections:
    """Merge overlapping detections by box voting (Gidaris and Komodakis, arXiv 1505.01749).

    The best remaining detection collects all that overlap it. Together they become one, with the score of the best and
    the score-weighted mean of the boxes and landmarks. A box without neighbours stays as it is: the authors' release
    drops those, and with them every face that only one scale sees.

    Args:
        detections: Anything with `boxes` `[N, 4]`, `scores` `[N]` (not negative) and `landmarks` `[N, 5, 2]` or None.
        iou_threshold: Float in (0, 1]: at and above it two boxes are the same face.
        max_detections: Integer, the most that come back.

    Returns:
        `ImageDetections`, scores falling.
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
