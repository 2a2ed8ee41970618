"""Score thresholds for a given precision, recall or number of false positives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.evaluation.widerface import (
    IOU_THRESHOLD,
    draw_images,
    faces_per_image,
    judge,
    match,
    percentile_interval,
)

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


@dataclass(frozen=True)
class ScoredDetections:
    """Every detection that counts, right or wrong, by falling score.

    Attributes:
        scores: Float64 `[D]`, falling.
        right: Bool `[D]`: the first on a face.
        image: Int64 `[D]`.
        faces: Float64 `[I]`: faces to find in each image.
    """

    scores: np.ndarray
    right: np.ndarray
    image: np.ndarray
    faces: np.ndarray


def score_detections(
    annotations: Annotations,
    detections: Mapping[str, Any],
    keep: np.ndarray,
    *,
    iou_threshold: float = IOU_THRESHOLD,
) -> ScoredDetections:
    """Judge all detections of a labeled set: each face is found once, by the best score that overlaps it.

    Detections on faces outside `keep`, a bool `[F]`, count neither way.
    """
    matching = match(annotations, detections, plus_one=False)
    proposal, right = judge(matching, keep, iou_threshold=iou_threshold)
    scores, image = [matching.scores[proposal]], [matching.image[proposal]]
    hits = [right[proposal]]
    # Images without faces have no match, but all that is found in them is a false positive.
    without_faces = np.bincount(annotations.image, minlength=len(annotations.names)) == 0
    for index in np.flatnonzero(without_faces):
        if (found := detections.get(annotations.names[index])) is not None:
            scores.append(np.asarray(found.scores, np.float64))
            image.append(np.full(len(scores[-1]), index))
            hits.append(np.zeros(len(scores[-1]), bool))
    scores, image, hits = np.concatenate(scores), np.concatenate(image), np.concatenate(hits)
    order = np.argsort(-scores, kind="stable")
    faces = faces_per_image(annotations, keep)
    return ScoredDetections(scores[order], hits[order], image[order].astype(np.int64), faces)


def operating_points(scored: ScoredDetections, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """What each distinct score, used as threshold, gives; `weights` `[I]` says how often each image counts (bootstrap).

    Returns:
        Dict of float64 arrays `[T]`: `threshold` (falling), `precision`, `recall`, `false_positives_per_image`.
    """
    weights = np.ones(len(scored.faces)) if weights is None else weights
    weight = weights[scored.image]
    right, all_found = np.cumsum(weight * scored.right), np.cumsum(weight)
    # A threshold lets all detections of a score in at once: only the last of equal ones is a point.
    last = np.append(scored.scores[1:] != scored.scores[:-1], True) if len(scored.scores) else np.zeros(0, bool)
    right, all_found = right[last], all_found[last]
    faces = float(weights @ scored.faces)
    return {
        "threshold": scored.scores[last],
        "precision": np.divide(right, all_found, out=np.ones_like(right), where=all_found > 0),
        "recall": right / faces if faces > 0 else np.full_like(right, np.nan),
        "false_positives_per_image": (all_found - right) / max(weights.sum(), 1.0),
    }


def choose_threshold(points: Mapping[str, np.ndarray], wanted: str, value: float) -> int | None:
    """Index of the operating point that reaches a target, or None.

    `precision`: the lowest threshold that has at least this precision, and so the most faces. `recall`: the highest
    that has at least this recall, and the fewest false positives. `false_positives_per_image`: the lowest with at most
    this number.
    """
    if wanted == "precision":
        good = np.flatnonzero(points["precision"] >= value)
        return int(good[-1]) if good.size else None
    if wanted == "recall":
        good = np.flatnonzero(points["recall"] >= value)
        return int(good[0]) if good.size else None
    if wanted == "false_positives_per_image":
        good = np.flatnonzero(points["false_positives_per_image"] <= value)
        return int(good[-1]) if good.size else None
    raise ValueError(f"`wanted` must be precision, recall or false_positives_per_image. Received: {wanted!r}")


def find_thresholds(
    scored: ScoredDetections,
    targets: Sequence[tuple[str, float]],
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Thresholds for several targets `(wanted, value)` of `choose_threshold`, with bootstrap intervals over images.

    Returns:
        List of dicts: `wanted`, `value`, and `threshold`, `interval`, `precision`, `recall`,
        `false_positives_per_image`, all None where the target cannot be reached; `reached_in`, the share of draws
        in which it can be reached; `best`, the nearest value that any threshold has.
    """
    points = operating_points(scored)
    chosen = [choose_threshold(points, *target) for target in targets]
    samples = [[] for _ in targets]
    for weights in draw_images(len(scored.faces), resamples, seed) if resamples else ():
        drawn = operating_points(scored, weights)
        for (wanted, value), sample in zip(targets, samples, strict=True):
            index = choose_threshold(drawn, wanted, value)
            if index is not None:
                sample.append(drawn["threshold"][index])
    rows = []
    for (wanted, value), index, sample in zip(targets, chosen, samples, strict=True):
        column = points[wanted]
        best = None
        if len(column):
            best = float(np.min(column) if wanted == "false_positives_per_image" else np.max(column))
        row = {"wanted": wanted, "value": value, "best": best, "interval": None, "reached_in": None}
        for key in points:
            row[key] = None if index is None else float(points[key][index])
        if resamples:
            row["reached_in"] = len(sample) / resamples
            row["interval"] = percentile_interval(sample, confidence) if sample and index is not None else None
        rows.append(row)
    return rows
