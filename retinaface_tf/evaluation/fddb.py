"""FDDB's two ROC curves: matched one to one for the largest sum of overlaps, as the official tool does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinaface_tf.geometry.overlap import pairwise_iou

FALSE_POSITIVES = 1000


@dataclass(frozen=True)
class RocCurve:
    """Cumulative counts at falling score thresholds.

    Attributes:
        thresholds: Float64 `[T]`, falling.
        false_positives: Float64 `[T]`: detections that match no face with an overlap above 0.5.
        discrete: Float64 `[T]`: share of faces matched with an overlap above 0.5.
        continuous: Float64 `[T]`: sum of the overlaps of all matches, divided by the faces.
        num_faces: Integer.
    """

    thresholds: np.ndarray
    false_positives: np.ndarray
    discrete: np.ndarray
    continuous: np.ndarray
    num_faces: int

    def at(self, false_positives: float = FALSE_POSITIVES) -> tuple[float, float]:
        """`(discrete, continuous)` rates at the lowest threshold with at most this number of false positives."""
        allowed = np.flatnonzero(self.false_positives <= false_positives)
        return (float(self.discrete[allowed[-1]]), float(self.continuous[allowed[-1]])) if allowed.size else (0.0, 0.0)


def roc(
    annotations: Mapping[str, np.ndarray],
    detections: Mapping[str, Any],
    *,
    kind: str = "ellipse",
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> RocCurve:
    """Both curves over a set of photos.

    In every photo and at every score in it, the detections from that score up are matched to the faces one to one, so
    that the sum of overlaps is largest (Hungarian method); each photo's counts hold until its next score.

    Args:
        annotations: Dict photo -> ellipses `[G, 5]`.
        detections: Dict photo -> anything with `boxes` (`xyxy`) and `scores`. A photo that is missing has none.
        kind: Overlap with the `ellipse` itself (official), or with its `tight` or `upright` box.
        image_sizes: Dict photo -> `(height, width)`, or None; see `ellipses.ellipse_iou`.

    Raises:
        ValueError: A photo is not annotated.
    """
    if unknown := sorted(set(detections) - set(annotations)):
        raise ValueError(f"no annotation for {unknown[0]!r} ({len(unknown)} unknown photos)")
    steps = []
    for name, ellipses in annotations.items():
        if name not in detections or len(detections[name].scores) == 0:
            continue
        boxes = np.asarray(detections[name].boxes, np.float64)
        scores = np.asarray(detections[name].scores, np.float64)

        size = None if image_sizes is None else image_sizes.get(name)
        steps.append(match_photo(overlap(ellipses, boxes, kind, size), scores))
    num_faces = sum(len(ellipses) for ellipses in annotations.values())
    if not steps:
        return RocCurve(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), num_faces)
    steps = np.concatenate(steps)
    steps = steps[np.argsort(-steps[:, 0], kind="stable")]
    counts = np.cumsum(steps[:, 1:], axis=0)
    # Photos with equal scores step together: only the last of equal thresholds is a point of the curve.
    last = np.append(steps[1:, 0] != steps[:-1, 0], True)
    found, overlaps, false = counts[last].T
    faces = max(num_faces, 1)
    return RocCurve(steps[last, 0], false, found / faces, overlaps / faces, num_faces)


def match_photo(iou: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One photo's counts, as changes at each of its scores, from IoU `[G, N]` and scores `[N]`.

    Returns:
        Float64 `[S, 4]`, one row a distinct score, falling: score, change of the faces found, of the sum of overlaps,
        of the false positives.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and only needed here

    touching = iou.max(axis=0, initial=0) > 0
    rows, found, overlaps = [], 0, 0.0
    for score in np.unique(scores)[::-1]:
        valid = scores >= score
        # What touches no face changes no matching; most detections of a low threshold are of this kind.
        if (touching & (scores == score)).any():
            part = iou[:, valid & touching]
            pairs = part[linear_sum_assignment(part, maximize=True)]
            found, overlaps = int((pairs > 0.5).sum()), float(pairs.sum())
        rows.append((score, found, overlaps, valid.sum() - found))
    rows = np.array(rows, np.float64).reshape(-1, 4)
    rows[1:, 1:] -= rows[:-1, 1:].copy()
    return rows


def evaluate_fddb(
    folds: Sequence[Mapping[str, np.ndarray]],
    detections: Mapping[str, Any],
    *,
    kind: str = "ellipse",
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
    false_positives: float = FALSE_POSITIVES,
) -> tuple[dict[str, Any], RocCurve]:
    """Detection rates over all folds together and in each.

    Args:
        folds: List of dicts photo -> ellipses `[G, 5]`, from `annotations.fddb.read_folds`.
        detections: Dict photo -> boxes and scores, of all folds.
        kind, image_sizes: See `roc`.
        false_positives: Where the rates are read, over all photos. A fold is read at its share, a tenth for ten folds.

    Returns:
        `(result, curve)`: a JSON-ready dict, and the `RocCurve` of all folds together.
    """
    everything = {name: ellipses for fold in folds for name, ellipses in fold.items()}
    curve = roc(everything, detections, kind=kind, image_sizes=image_sizes)
    discrete, continuous = curve.at(false_positives)
    each = []
    for fold in folds:
        own = {name: detections[name] for name in fold if name in detections}
        each.append(roc(fold, own, kind=kind, image_sizes=image_sizes).at(false_positives / len(folds)))
    result = {
        "photos": len(everything),
        "faces": curve.num_faces,
        "detections": int(sum(len(found.scores) for found in detections.values())),
        "overlap": kind,
        "false_positives": false_positives,
        "false_positives_at_the_lowest_score": int(curve.false_positives[-1]) if curve.false_positives.size else 0,
        "discrete": discrete,
        "continuous": continuous,
        "folds": {"discrete": [rate for rate, _ in each], "continuous": [rate for _, rate in each]},
    }
    return result, curve


CONVERSIONS = ("tight", "upright")


def ellipses_to_boxes(ellipses: np.ndarray, conversion: str = "tight") -> np.ndarray:
    """Boxes that stand for ellipses `[G, 5]`: float64 `[G, 4]`, `xyxy` pixels.

    `tight` is the smallest box around the turned ellipse; `upright` the box of the ellipse turned until its long axis
    is vertical, as several training lists made from FDDB have it.
    """
    long, short, angle, x, y = np.asarray(ellipses, np.float64).reshape(-1, 5).T
    if conversion == "tight":
        half_width = np.hypot(long * np.cos(angle), short * np.sin(angle))
        half_height = np.hypot(long * np.sin(angle), short * np.cos(angle))
    elif conversion == "upright":
        half_width, half_height = short, long
    else:
        raise ValueError(f"`conversion` must be one of {list(CONVERSIONS)}. Received: conversion={conversion!r}")
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def ellipse_iou(ellipses: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """IoU `[G, N]` of ellipses `[G, 5]` and boxes `[N, 4]` by counting pixels, as the official tool does on masks.

    Like there, centers are rounded, radii and box corners cut to integers, and both ends of a box are inside it. With
    `image_size`, `(height, width)`, only pixels inside the photo count: the official tool draws into the photo, so
    that what a detection covers outside costs nothing.
    """
    ellipses = np.asarray(ellipses, np.float64).reshape(-1, 5)
    boxes = np.trunc(np.asarray(boxes, np.float64).reshape(-1, 4)).astype(np.int64)
    limits = [-(2**31), 2**31, -(2**31), 2**31] if image_size is None else [0, image_size[1], 0, image_size[0]]
    columns = np.clip(np.stack([boxes[:, 0], boxes[:, 2] + 1]), limits[0], limits[1])
    rows = np.clip(np.stack([boxes[:, 1], boxes[:, 3] + 1]), limits[2], limits[3])
    areas = np.maximum(columns[1] - columns[0], 0) * np.maximum(rows[1] - rows[0], 0)
    iou = np.zeros((len(ellipses), len(boxes)))
    for index, ellipse in enumerate(ellipses):
        mask, left, top = _mask(ellipse, limits)
        # Inclusive sums of the mask give the pixels inside any box in four look-ups.
        total = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        x1, x2 = np.clip(columns - left, 0, mask.shape[1])
        y1, y2 = np.clip(rows - top, 0, mask.shape[0])
        shared = np.where(areas > 0, total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1], 0)
        union = areas + total[-1, -1] - shared
        iou[index] = np.divide(shared, union, out=np.zeros(len(boxes)), where=union > 0)
    return iou


def overlap(
    ellipses: np.ndarray, boxes: np.ndarray, kind: str = "ellipse", image_size: tuple[int, int] | None = None
) -> np.ndarray:
    """IoU `[G, N]` with the ellipse itself (`ellipse`, official) or with a box made of it (`tight`, `upright`)."""
    if kind == "ellipse":
        return ellipse_iou(ellipses, boxes, image_size)
    return pairwise_iou(ellipses_to_boxes(ellipses, kind), boxes)


def _mask(ellipse, limits):
    """Bool `[h, w]` of the pixels inside one ellipse and the limits, and its left and top."""
    long, short = max(1, int(ellipse[0])), max(1, int(ellipse[1]))
    x, y = (int(np.floor(value + 0.5)) for value in ellipse[3:])
    reach = max(long, short) + 1
    columns = np.arange(max(x - reach, limits[0]), max(min(x + reach + 1, limits[1]), max(x - reach, limits[0])))
    rows = np.arange(max(y - reach, limits[2]), max(min(y + reach + 1, limits[3]), max(y - reach, limits[2])))
    cos, sin = np.cos(ellipse[2]), np.sin(ellipse[2])
    dx, dy = (columns - x)[None, :], (rows - y)[:, None]
    inside = ((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2 <= 1
    left, top = (int(axis[0]) if axis.size else 0 for axis in (columns, rows))
    return inside, left, top
