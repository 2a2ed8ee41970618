"""WIDER FACE average precision, with the arithmetic of the official Matlab tool.

The tool's steps, so that every departure below has a name: scores are min-max normalized over the whole set; an image's
detections are sorted by score; each takes its single best face among all of them, with one pixel added to widths and
heights; at IoU 0.5 a face outside the subset removes the detection, the first hit on a face inside raises the recall,
later ones are false positives; counts are read at 1,000 thresholds and summed over the images.

Nothing but the choice of faces differs between subsets, so the matching runs once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from retinaface_tf.evaluation.detection_files import truncate
from retinaface_tf.geometry.overlap import pairwise_iou

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


THRESHOLDS = 1 - np.arange(1, 1001) / 1000
IOU_THRESHOLD = 0.5
MAP_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class Matching:
    """Every detection of the set and its best face, flat, image after image in the order they are walked.

    Attributes:
        image: Int64 `[D]`.
        step: Int64 `[D]`: the first of `THRESHOLDS` that lets the detection in; 1000 if none does.
        scores: Float64 `[D]`, as given.
        face: Int64 `[D]`: the best face in the set.
        iou: Float64 `[D]` with that face.
        num_images: Images in the set, those without detections included.
    """

    image: np.ndarray
    step: np.ndarray
    scores: np.ndarray
    face: np.ndarray
    iou: np.ndarray
    num_images: int


def match(
    annotations: Annotations,
    detections: Mapping[str, Any],
    *,
    integer_boxes: bool = False,
    published_python: bool = False,
    plus_one: bool = True,
    skip_empty_photos: bool = True,
) -> Matching:
    """Give every detection its best face.

    Args:
        annotations: `Annotations`.
        detections: Dict `event/photo` -> anything with `boxes` `[N, 4]` (`xyxy`) and `scores` `[N]`. A missing photo
            is one in which nothing was found.
        integer_boxes: Whether to cut the corners to integers first.
        published_python: Walk each image in the order given, and start the normalization at minimum 1 and maximum 0,
            as the widespread Python port does. For tracing old numbers; the official tool sorts.
        plus_one: Whether widths and heights count one pixel more. Some ports leave it out.
        skip_empty_photos: Whether photos without a labeled face don't count at all, as in the official tool; else what
            is found in them is a false alarm.

    Returns:
        A `Matching`.

    Raises:
        ValueError: A photo is not in the ground truth, shapes do not fit, or a number is not finite.
    """
    annotations.require_names(detections)
    if not annotations.has_boxes:
        raise ValueError("the annotations have faces without a box, which can't be matched with detections")
    offsets = annotations.offsets()
    rows = []
    for index, name in enumerate(annotations.names):
        start, stop = offsets[index], offsets[index + 1]
        if name not in detections or (start == stop and skip_empty_photos):
            continue
        boxes, scores = _checked(name, detections[name])
        if len(scores) == 0:
            continue
        if not published_python:
            order = np.argsort(-scores, kind="stable")
            boxes, scores = boxes[order], scores[order]
        iou = pairwise_iou(
            truncate(boxes) if integer_boxes else boxes, annotations.boxes[start:stop], plus_one=plus_one
        )
        if start == stop:  # any face will do: it is not touched
            rows.append((np.full(len(scores), index), scores, np.zeros(len(scores), int), np.zeros(len(scores))))
            continue
        best = np.argmax(iou, axis=1)
        rows.append((np.full(len(scores), index), scores, start + best, iou[np.arange(len(best)), best]))
    image, scores, face, iou = (
        [np.concatenate(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 4
    )
    # The scores that set the scale are those of all photos, also of the ones skipped above.
    all_scores = [np.asarray(each.scores, np.float64).ravel() for each in detections.values()]
    everything = np.concatenate(all_scores) if all_scores else np.zeros(0)
    normalized = _normalize(scores, everything, published_python)
    if published_python:
        normalized = _largest_from_here_on(normalized, image)
    step = np.searchsorted(-THRESHOLDS, -normalized, side="left")
    return Matching(image, step, np.asarray(scores, np.float64), face, iou, len(annotations.names))


def count(
    matching: Matching, keep: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD, per_image: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals and hits at or above each of the 1,000 thresholds.

    Args:
        matching: `Matching`.
        keep: Bool `[F]`: the faces to find; detections on the others are dropped.
        iou_threshold: Float in (0, 1].
        per_image: Whether to count each image alone.

    Returns:
        `(proposals, hits)`, int64 `[1000]`, or `[I, 1000]` per image.
    """
    proposal, hit = judge(matching, keep, iou_threshold=iou_threshold)
    return _cumulate(matching, proposal, per_image), _cumulate(matching, hit, per_image)


def judge(
    matching: Matching, keep: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """Two bool arrays `[D]`: whether each detection is a proposal, and whether it is the first on a face to find."""
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"`iou_threshold` must be in (0, 1]. Received: iou_threshold={iou_threshold}")
    if len(matching.face) == 0:
        return np.zeros(0, bool), np.zeros(0, bool)
    on_a_face = matching.iou >= iou_threshold
    wanted = keep[matching.face]
    candidates = np.flatnonzero(on_a_face & wanted)
    # `np.unique` returns first occurrences, and detections are stored in the order they are walked.
    _, first = np.unique(matching.face[candidates], return_index=True)
    hit = np.zeros(len(matching.face), bool)
    hit[candidates[first]] = True
    return ~(on_a_face & ~wanted), hit


def curve(
    matching: Matching, keep: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """`(precision, recall)`, float64 `[1000]` each, over the faces in `keep`."""
    proposals, hits = count(matching, keep, iou_threshold=iou_threshold)
    return precision_recall(proposals, hits, np.count_nonzero(keep))


def subset_ap(matching: Matching, keep: np.ndarray, *, iou_threshold: float = IOU_THRESHOLD) -> float:
    """AP over the faces in `keep`: float, NaN if there are none."""
    precision, recall = curve(matching, keep, iou_threshold=iou_threshold)
    return float(average_precision(recall, precision))


def evaluate_widerface(annotations: Annotations, detections: Mapping[str, Any], **options: Any) -> dict[str, float]:
    """Easy, Medium and Hard AP.

    Args:
        annotations: `Annotations`.
        detections: As for `match`.
        **options: `integer_boxes`, `published_python`, `plus_one` of `match`.

    Returns:
        Dict subset -> AP in `[0, 1]`.
    """
    matching = match(annotations, detections, **options)
    return {name: subset_ap(matching, keep) for name, keep in annotations.subsets.items()}


def _checked(name, found):
    boxes, scores = np.asarray(found.boxes, np.float64), np.asarray(found.scores, np.float64)
    if scores.ndim != 1 or boxes.size != 4 * scores.size:
        raise ValueError(f"{name}: expected boxes [N, 4] and scores [N]. Received: {boxes.shape} and {scores.shape}")
    boxes = boxes.reshape(-1, 4)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(f"{name}: boxes and scores must be finite numbers")
    return boxes, scores


def _normalize(scores, everything, published_python):
    """Scores to [0, 1] over the whole set. All equal: 1, where the known tools divide 0 by 0."""
    if len(everything) == 0:
        return np.zeros(0)
    low, high = everything.min(), everything.max()
    if published_python:
        low, high = min(low, 1.0), max(high, 0.0)
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def _largest_from_here_on(scores, image):
    """The largest score from each detection to its image's end: `[D]`.

    The port reads its counts at the last index whose score passes, so in an unsorted image a detection is in as soon as
    any detection after it is. With sorted scores this changes nothing.
    """
    starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]]) if len(image) else np.zeros(0, np.int64)
    return np.concatenate(
        [np.zeros(0)] + [np.maximum.accumulate(part[::-1])[::-1] for part in np.split(scores, starts[1:])]
    )


def _cumulate(matching, chosen, per_image):
    steps = len(THRESHOLDS) + 1  # one more for detections that no threshold lets in
    step = matching.step[chosen]
    if not per_image:
        return np.cumsum(np.bincount(step, minlength=steps)[:-1])
    flat = np.bincount(matching.image[chosen] * steps + step, minlength=matching.num_images * steps)
    return np.cumsum(flat.reshape(matching.num_images, steps)[:, :-1], axis=1)


def average_precision(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under the interpolated curve, all points (PASCAL VOC from 2010 on; `VOCap.m`).

    Args:
        recall: Float array `[..., T]`, rising.
        precision: Float array `[..., T]`.

    Returns:
        Float64 array `[...]` in `[0, 1]`; NaN where the recall is NaN (nothing to find).
    """
    recall = _pad(recall, first=0.0, last=1.0)
    precision = _pad(precision, first=0.0, last=0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(np.diff(recall, axis=-1) * envelope[..., 1:], axis=-1)


def precision_recall(proposals: np.ndarray, hits: np.ndarray, num_faces: Any) -> tuple[np.ndarray, np.ndarray]:
    """Counts to curve.

    Args:
        proposals: Integer array `[..., T]`: detections that count, at or above each threshold.
        hits: Integer array `[..., T]`: faces found by them.
        num_faces: Integer or array `[...]`: faces to find.

    Returns:
        `(precision, recall)`, float64 `[..., T]`. Precision is 0 before the first proposal, where the Matlab tool has
        NaN and skips it: the recall is 0 there too, so that the area is the same. Recall is NaN without faces.
    """
    proposals, hits = np.asarray(proposals, np.float64), np.asarray(hits, np.float64)
    num_faces = np.asarray(num_faces, np.float64)[..., None]
    precision = np.divide(hits, proposals, out=np.zeros_like(hits), where=proposals > 0)
    recall = np.divide(hits, num_faces, out=np.full_like(hits, np.nan), where=num_faces > 0)
    return precision, recall


def percentile_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The middle `confidence` of bootstrap samples, NaN left out: `(low, high)` floats, NaN without samples."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1). Received: confidence={confidence}")
    samples = np.asarray(samples, np.float64)
    samples = samples[~np.isnan(samples)]
    if samples.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _pad(values, first, last):
    values = np.asarray(values, np.float64)
    ends = (*values.shape[:-1], 1)
    return np.concatenate([np.full(ends, first), values, np.full(ends, last)], axis=-1)
