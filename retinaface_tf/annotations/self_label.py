"""What a detector may say about faces that people labelled in part. Numbers only, no model."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from retinaface_tf.geometry.overlap import pairwise_iou


class Labels(NamedTuple):
    """Faces of one photo.

    Attributes:
        boxes: float64 `[N, 4]`, `xyxy` pixels.
        landmarks: float64 `[N, 5, 2]`, pixels; NaN where not labelled.
    """

    boxes: np.ndarray
    landmarks: np.ndarray


def add_landmarks(
    boxes: np.ndarray, found: Any, may_have: np.ndarray, *, min_score: float = 0.9, min_iou: float = 0.5
) -> Labels:
    """Landmarks for labelled boxes, each from the detection that overlaps it most, where that one is sure.

    Args:
        boxes: float `[N, 4]`, `xyxy` pixels, as people drew them.
        found: anything with `boxes` `[M, 4]`, `scores` `[M]` and `landmarks` `[M, 5, 2]`.
        may_have: bool `[N]`: faces whose landmarks can be seen (a mask hides three of five).
        min_score, min_iou: floats, of a detection that is believed.

    Returns:
        `Labels` of N faces: the boxes as given.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    landmarks = np.full((len(boxes), 5, 2), np.nan)
    if len(boxes) and len(found.boxes):
        overlap = pairwise_iou(boxes, found.boxes)
        best = overlap.argmax(axis=1)
        own = overlap.argmax(axis=0)[best] == np.arange(len(boxes))  # no detection speaks for two faces
        sure = own & (overlap.max(axis=1) >= min_iou) & (np.asarray(found.scores)[best] >= min_score)
        sure &= np.asarray(may_have, bool)
        landmarks[sure] = np.asarray(found.landmarks, np.float64)[best[sure]]
    return Labels(boxes, landmarks)


def add_boxes(landmarks: np.ndarray, found: Any, *, min_score: float = 0.5, max_eye_error: float = 0.25) -> Labels:
    """Boxes for labelled landmarks, each from the detection whose eyes are nearest, where they agree.

    Args:
        landmarks: float `[N, 5, 2]`, pixels; NaN where not labelled. The eyes must be.
        found: as in `add_landmarks`.
        min_score: float, of a detection that is believed.
        max_eye_error: float. Largest mean distance of the two eyes, in parts of the labelled distance between them.

    Returns:
        (`Labels` of N faces: box NaN where no detection agrees; labelled points as they are, the others from the
        detection).
    """
    landmarks = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    boxes = np.full((len(landmarks), 4), np.nan)
    kept = np.flatnonzero(np.asarray(found.scores) >= min_score)
    points = np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)[kept]
    for face, labelled in enumerate(landmarks):
        between = np.linalg.norm(labelled[0] - labelled[1])
        if not len(points) or not between > 0:
            continue
        error = np.linalg.norm(points[:, :2] - labelled[:2], axis=-1).mean(axis=1) / between
        nearest = int(error.argmin())
        if error[nearest] <= max_eye_error:
            boxes[face] = np.asarray(found.boxes, np.float64)[kept[nearest]]
            missing = np.isnan(labelled).any(axis=-1)
            landmarks[face, missing] = points[nearest, missing]
    return Labels(boxes, landmarks)


def add_faces(labels: Labels, found: Any, *, min_score: float = 0.9, max_iou: float = 0.3) -> Labels:
    """The labelled faces, and after them sure detections that overlap none: faces that nobody marked.

    Args:
        labels: `Labels` whose boxes are known.
        found: as in `add_landmarks`.
        min_score: float.
        max_iou: float. A detection that overlaps a labelled face more than this is that face.

    Returns:
        `Labels` of at least as many faces.
    """
    new = np.asarray(found.scores) >= min_score
    if len(labels.boxes) and len(found.boxes):
        new &= pairwise_iou(found.boxes, labels.boxes).max(axis=1) <= max_iou
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)[new]
    points = np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)[new]
    return Labels(np.concatenate([labels.boxes, boxes]), np.concatenate([labels.landmarks, points]))
