"""Add missing boxes and landmarks to labels with a detector. Works on numbers only, without a model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.common.types import LANDMARK_NAMES, NOT_LABELED, VISIBLE
from retinaface_tf.geometry.overlap import pairwise_iou


class Completed(NamedTuple):
    """What `complete` returns.

    Attributes:
        annotations: `Annotations` of the photos that could be completed.
        photos_left_out: Photos in which the detector disagrees with a labeled face that has no box.
        unreadable: One line for each photo that could not be read.
        faces_added: Number of faces that had no label.
    """

    annotations: Annotations
    photos_left_out: int
    unreadable: list[str]
    faces_added: int


def complete(
    annotations: Annotations,
    detect: Callable[[str], Any],
    *,
    classes: Collection[str] | None = None,
    min_score: float = 0.9,
    only_boxes: bool = False,
    add_unlabeled: bool = False,
) -> Completed:
    """Add boxes and landmarks that a detector finds to labels.

    A face with a box gets the landmarks that it lacks, a face with landmarks the box. A photo with a face whose box
    can't be had is left out: the face would be trained as background.

    Args:
        annotations: `Annotations` in pixels.
        detect: Function of a photo's file, as in `annotations.files`, that returns `boxes` `[M, 4]`, `scores` `[M]` and
            `landmarks` `[M, 5, 2]`. A ValueError says that the photo can't be read.
        classes: Classes whose landmarks can be seen (a mask hides three of five); None for all.
        min_score: Score above which a detection is believed.
        only_boxes: Whether landmarks stay unlabeled where a box is asked for.
        add_unlabeled: Whether detections that overlap no face become faces.

    Raises:
        ValueError: An argument is out of its range, or no face is of `classes`.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"`min_score` must be in [0, 1]. Received: min_score={min_score}")
    known = set(annotations.classes)
    if classes and not known & set(classes):
        raise ValueError(f"no face has one of the classes {list(classes)}; classes in the labels: {sorted(known)}")
    photos, left_out, unreadable, added = [], 0, [], 0
    for photo in annotations:
        try:
            found = detect(photo.files[0])
        except ValueError as error:  # one photo of thousands: the others are labeled all the same
            unreadable.append(str(error))
            continue
        without_box = np.isnan(photo.boxes).any(axis=1)
        labeled = photo.landmarks_or_nan()
        seen = np.array([not classes or label in classes for label in photo.classes], bool)
        boxes, landmarks = photo.boxes.copy(), labeled.copy()
        boxes[without_box], points = add_boxes(labeled[without_box], found)
        landmarks[without_box] = labeled[without_box] if only_boxes else points
        if np.isnan(boxes).any():
            left_out += 1
            continue
        points = add_landmarks(boxes[~without_box], found, seen[~without_box], min_score=min_score)
        landmarks[~without_box] = np.where(np.isnan(labeled[~without_box]), points, labeled[~without_box])
        states = np.where(photo.visible == NOT_LABELED, VISIBLE, photo.visible)
        states = np.where(np.isnan(landmarks).any(-1), NOT_LABELED, states)
        photo = photo.replace(boxes=boxes, landmarks=np.nan_to_num(landmarks), visible=states)
        if add_unlabeled:
            new = find_unlabeled(boxes, found, min_score=min_score)
            added += int(new.sum())
            photo = _append(photo, found, new)
        photos.append(photo)
    return Completed(join(photos), left_out, unreadable, added)


def add_landmarks(
    boxes: np.ndarray, found: Any, may_have: np.ndarray, *, min_score: float = 0.9, min_iou: float = 0.5
) -> np.ndarray:
    """Landmarks for labeled boxes, from the detection with the largest overlap if its score is high enough.

    Args:
        boxes: Float `[N, 4]`, `xyxy` pixels, as people drew them.
        found: Anything with `boxes` `[M, 4]`, `scores` `[M]` and `landmarks` `[M, 5, 2]`.
        may_have: Bool `[N]`: faces whose landmarks can be seen.
        min_score, min_iou: Floats, of a detection that is believed.

    Returns:
        Float64 `[N, 5, 2]`; NaN where there is none.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    landmarks = np.full((len(boxes), 5, 2), np.nan)
    if len(boxes) and len(found.boxes):
        overlap = pairwise_iou(boxes, found.boxes)
        best = overlap.argmax(axis=1)
        own = overlap.argmax(axis=0)[best] == np.arange(len(boxes))  # a detection labels one face alone
        sure = own & (overlap.max(axis=1) >= min_iou) & (np.asarray(found.scores)[best] >= min_score)
        sure &= np.asarray(may_have, bool)
        landmarks[sure] = np.asarray(found.landmarks, np.float64)[best[sure]]
    return landmarks


def add_boxes(
    landmarks: np.ndarray, found: Any, *, min_score: float = 0.5, max_eye_error: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes for labeled landmarks, from the detection with the nearest eyes if they agree.

    Args:
        landmarks: Float `[N, 5, 2]`, pixels; NaN where not labeled. The eyes must be.
        found, min_score: As in `add_landmarks`.
        max_eye_error: Largest mean distance of the two eyes, as a fraction of the labeled distance between them.

    Returns:
        (boxes float64 `[N, 4]`, NaN where no detection agrees; landmarks `[N, 5, 2]`: the labeled ones as they are, the
        others from the detection).
    """
    landmarks = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    boxes = np.full((len(landmarks), 4), np.nan)
    kept = np.flatnonzero(np.asarray(found.scores) >= min_score)
    points = np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)[kept]
    for face, labeled in enumerate(landmarks):
        between = np.linalg.norm(labeled[0] - labeled[1])
        if not len(points) or not between > 0:
            continue
        error = np.linalg.norm(points[:, :2] - labeled[:2], axis=-1).mean(axis=1) / between
        nearest = int(error.argmin())
        if error[nearest] <= max_eye_error:
            boxes[face] = np.asarray(found.boxes, np.float64)[kept[nearest]]
            missing = np.isnan(labeled).any(axis=-1)
            landmarks[face, missing] = points[nearest, missing]
    return boxes, landmarks


def find_unlabeled(boxes: np.ndarray, found: Any, *, min_score: float = 0.9, max_iou: float = 0.3) -> np.ndarray:
    """Which detections overlap no labeled face by more than `max_iou`, and so are faces without a label: bool `[M]`."""
    new = np.asarray(found.scores) >= min_score
    if len(boxes) and len(found.boxes):
        new &= pairwise_iou(found.boxes, boxes).max(axis=1) <= max_iou
    return new


def believe_landmarks(annotations: Annotations, names: Collection[str]) -> Annotations:
    """The same annotations without the landmarks that are not in `names`."""
    kept = np.array([name in names for name in LANDMARK_NAMES])
    visible = np.where(kept, annotations.visible, NOT_LABELED)
    return annotations.replace(visible=visible, landmarks=np.where(kept[:, None], annotations.landmarks, 0.0))


def _append(photo, found, new):
    """A photo with the chosen detections as further faces."""
    points = np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)[new]
    more = annotate_photo(
        photo.files[0],
        np.asarray(found.boxes, np.float64).reshape(-1, 4)[new],
        points,
        np.full(points.shape[:2], VISIBLE),
    )
    both = join([photo, more])
    return both.replace(
        files=photo.files, names=photo.names, sizes=photo.sizes, image=np.zeros(both.num_faces, np.int64)
    )
