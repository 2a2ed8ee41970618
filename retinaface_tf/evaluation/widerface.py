"""WIDER FACE average precision, with the arithmetic of the official Matlab tool.

The tool's steps, so that every departure below has a name: scores are min-max normalized over the whole set; an image's
detections are sorted by score; each takes its single best face among all of them, with one pixel added to widths and
heights; at IoU 0.5 a face outside the subset removes the detection, the first hit on a face inside raises the recall,
later ones are false positives; counts are read at 1,000 thresholds and summed over the images.

Nothing but the choice of faces differs between subsets, so the matching runs once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from retinaface_tf.annotations.annotations import FLAG_MEANINGS, FLAGS, UNKNOWN
from retinaface_tf.common.text import pluralize
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
        detections: Dict `event/photo` -> anything with `boxes` `[N, 4]` (`xyxy`) and `scores` `[N]`. A missing photo
            is one in which nothing was found.
        integer_boxes: Whether to cut the corners to integers first.
        published_python: Walk each image in the order given, and start the normalization at minimum 1 and maximum 0,
            as the widespread Python port does. For tracing old numbers; the official tool sorts.
        plus_one: Whether widths and heights count one pixel more. Some ports leave it out.
        skip_empty_photos: Whether photos without a labeled face don't count at all, as in the official tool; else what
            is found in them is a false positive.

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
    """Proposals and hits at or above each of the 1,000 thresholds, int64 `[1000]` each, or `[I, 1000]` per image.

    `keep` `[F]` are the faces to find; detections on the others are dropped.
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
    """Easy, Medium and Hard AP in `[0, 1]`, by subset. Options are those of `match`."""
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

    Recall, rising, and precision are `[..., T]`; the area is float64 `[...]`, NaN where the recall is NaN (nothing to
    find).
    """
    recall = _pad(recall, first=0.0, last=1.0)
    precision = _pad(precision, first=0.0, last=0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(np.diff(recall, axis=-1) * envelope[..., 1:], axis=-1)


def precision_recall(proposals: np.ndarray, hits: np.ndarray, num_faces: Any) -> tuple[np.ndarray, np.ndarray]:
    """Counts of proposals and hits at each threshold, integer `[..., T]`, to `(precision, recall)`, float64 `[..., T]`.

    Precision is 0 before the first proposal, where the Matlab tool has NaN and skips it: the recall is 0 there too, so
    that the area is the same. Recall is NaN without faces.
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


def report_widerface(
    annotations: Annotations,
    detections: Mapping[str, Any],
    *,
    resamples: int = 0,
    details: bool = True,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Score a run and say with which arithmetic.

    Args:
        annotations: `Annotations`.
        detections: Dict `event/photo` -> boxes and scores, as for `match`.
        resamples: Bootstrap draws for the intervals; 0 for none.
        details: Whether to add mAP, AP by height, event and flag.
        **options: `integer_boxes`, `published_python`, `plus_one` of `match`.

    Returns:
        JSON-ready dict; numbers that do not exist (no such faces) are None.
    """
    matching = match(annotations, detections, **options)
    every_face = np.ones(len(annotations.boxes), bool)
    keeps = {**annotations.subsets, "all": every_face}
    report = {
        "photos": len(annotations.names),
        "photos_with_a_file": len(detections),
        "detections": len(matching.face),
        "faces": {name: int(keep.sum()) for name, keep in keeps.items()},
        "arithmetic": "published python" if options.get("published_python") else "official",
        "boxes": "integer" if options.get("integer_boxes") else "float",
        "plus_one": options.get("plus_one", True),
        "ap": {name: subset_ap(matching, keep) for name, keep in keeps.items()},
    }
    if not options.get("integer_boxes"):
        # Result files in the wild hold integers: both numbers, or a comparison is with the wrong one.
        cut = match(annotations, detections, **{**options, "integer_boxes": True})
        report["ap_with_integer_boxes"] = {name: subset_ap(cut, keep) for name, keep in keeps.items()}
    if resamples:
        report["interval_95"] = {
            name: bootstrap_ap(annotations, matching, keep, resamples=resamples, seed=seed)
            for name, keep in keeps.items()
        }
    if details:
        report["map_50_95"] = {name: mean_ap(matching, keep) for name, keep in keeps.items()}
        report["per_image"] = {
            "ap": per_image_ap(annotations, matching, every_face),
            "map_50_95": per_image_ap(annotations, matching, every_face, iou_thresholds=MAP_IOU_THRESHOLDS),
        }
        report["by_height"] = ap_by_height(annotations, matching)
        report["by_flag"] = ap_by_flag(annotations, matching)
        report["by_event"] = ap_by_event(annotations, matching, every_face)
    return without_nan(report)


def format_report(report: dict[str, Any]) -> str:
    """The report as aligned text, without the events (61 lines; they are in the JSON)."""
    names = list(report["ap"])
    lines = [
        f"WIDER FACE, {pluralize(report['photos'], 'photo')} ({report['photos_with_a_file']} with a result file), "
        f"{pluralize(report['detections'], 'detection')}, {report['arithmetic']} arithmetic"
        + ("" if report["plus_one"] else ", without +1"),
        _row("", [name.capitalize() for name in names]),
        _row("faces", [report["faces"][name] for name in names]),
        _row(f"AP, {report['boxes']} boxes", [percent(report["ap"][name]) for name in names]),
    ]
    if "ap_with_integer_boxes" in report:
        lines.append(_row("AP, integer boxes", [percent(report["ap_with_integer_boxes"][name]) for name in names]))
    if "interval_95" in report:
        ends = [report["interval_95"][name] for name in names]
        lines.append(_row("95 % interval", [f"{percent(low)}-{percent(high)}" for low, high in ends]))
    if "map_50_95" in report:
        lines.append(_row("mAP 0.5:0.95", [percent(report["map_50_95"][name]) for name in names]))
        lines.append(
            "mean of each photo's own AP: "
            f"{percent(report['per_image']['ap'])}, mAP 0.5:0.95 {percent(report['per_image']['map_50_95'])}"
        )
        lines += ["", _row("height, pixels", ["faces", "AP"])]
        for row in report["by_height"]:
            band = f"{row['from']:.0f} to {row['to']:.0f}" if row["to"] else f"{row['from']:.0f} and more"
            lines.append(_row(band, [row["faces"], percent(row["ap"])]))
        for flag, values in report["by_flag"].items():
            lines += ["", _row(flag, ["faces", "AP"])]
            lines += [_row(value, [row["faces"], percent(row["ap"])]) for value, row in values.items()]
    return "\n".join(lines)


def without_nan(value: Any) -> Any:
    """The same nested value with NaN as None, tuples as lists, NumPy numbers as Python's: what JSON can hold."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [without_nan(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def percent(value: float | None) -> str:
    """A share in percent with two decimals; a dash for what does not exist."""
    return "-" if value is None else f"{100 * value:.2f}"


def _row(title, cells):
    return (f"{title:<18}" + "".join(f"{cell!s:>13}" for cell in cells)).rstrip()


REPORTED_FLAGS = ("blur", "occlusion", "pose", "expression", "illumination", "invalid")
HEIGHT_EDGES = (0, 10, 20, 50, 100, 300, np.inf)


def mean_ap(matching: Matching, keep: np.ndarray) -> float:
    """Mean AP over IoU 0.5 : 0.05 : 0.95, with the matching of the WIDER tool (not COCO's): float."""
    return float(np.mean([subset_ap(matching, keep, iou_threshold=float(iou)) for iou in MAP_IOU_THRESHOLDS]))


def ap_by_height(
    annotations: Annotations,
    matching: Matching,
    among: np.ndarray | None = None,
    *,
    edges: Sequence[float] = HEIGHT_EDGES,
) -> list[dict[str, Any]]:
    """AP over the faces of each height band, all others ignored; of `among` alone, a bool `[F]`, if given.

    Returns:
        List of dicts `from`, `to` (pixels, half-open; None for no end), `faces`, `ap`.
    """
    heights = annotations.boxes[:, 3] - annotations.boxes[:, 1]
    rows = []
    for low, high in pairwise(edges):
        keep = (heights >= low) & (heights < high)
        keep = keep if among is None else keep & among
        end = None if np.isinf(high) else float(high)
        rows.append({"from": float(low), "to": end, "faces": int(keep.sum()), "ap": subset_ap(matching, keep)})
    return rows


def ap_by_flag(annotations: Annotations, matching: Matching) -> dict[str, Any]:
    """AP over the faces with each value of each flag, all others ignored: dict flag -> value -> `faces`, `ap`."""
    table = {}
    for flag in REPORTED_FLAGS:
        values = annotations.flags[:, FLAGS.index(flag)]
        if (values == UNKNOWN).all():
            continue
        keeps = {meaning: values == code for code, meaning in enumerate(FLAG_MEANINGS[flag])}
        table[flag] = {key: {"faces": int(k.sum()), "ap": subset_ap(matching, k)} for key, k in keeps.items()}
    return table


def ap_by_event(annotations: Annotations, matching: Matching, keep: np.ndarray) -> dict[str, dict[str, Any]]:
    """AP over the photos of each event alone: dict event -> `photos`, `faces`, `ap`.

    Scores are normalized over the whole set, so an event is scored as in the total.
    """
    proposals, hits = count(matching, keep, per_image=True)
    faces = faces_per_image(annotations, keep)
    events, table = annotations.events, {}
    for event in sorted(set(events), key=lambda name: (len(name.split("--")[0]), name)):
        rows = events == event
        precision, recall = precision_recall(proposals[rows].sum(0), hits[rows].sum(0), faces[rows].sum())
        ap = float(average_precision(recall, precision))
        table[event] = {"photos": int(rows.sum()), "faces": int(faces[rows].sum()), "ap": ap}
    return table


def per_image_ap(
    annotations: Annotations, matching: Matching, keep: np.ndarray, *, iou_thresholds: Any = (0.5,)
) -> float:
    """Mean of each photo's own AP, in the manner of the Julia port's `AP` and `mAP`: float.

    A photo with one large face weighs as much as one with 500 small ones, so this stands far above the pooled number,
    and the two must not be compared. The port also counts at most one false positive per face; we count all.
    """
    faces = faces_per_image(annotations, keep)
    if not faces.any():
        return float("nan")
    values = []
    for iou_threshold in iou_thresholds:
        proposals, hits = count(matching, keep, iou_threshold=float(iou_threshold), per_image=True)
        precision, recall = precision_recall(proposals, hits, faces)
        values.append(average_precision(recall, precision)[faces > 0].mean())
    return float(np.mean(values))


def bootstrap_ap(
    annotations: Annotations,
    matching: Matching,
    keep: np.ndarray,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval `(low, high)` of AP over photos drawn again with replacement.

    Score normalization and matching stay as they are: only photos are drawn.
    """
    if resamples < 1:
        raise ValueError(f"`resamples` must be at least 1. Received: resamples={resamples}")
    proposals, hits = count(matching, keep, per_image=True)
    faces = faces_per_image(annotations, keep)
    draws = draw_images(len(faces), resamples, seed)
    precision, recall = precision_recall(draws @ proposals, draws @ hits, draws @ faces)
    return percentile_interval(average_precision(recall, precision), confidence)


def draw_images(num_images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each bootstrap draw: float64 `[resamples, num_images]`, rows summing to the images."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples).astype(np.float64)


def faces_per_image(annotations: Annotations, keep: np.ndarray) -> np.ndarray:
    """Float64 `[I]`: how many of the faces in `keep` each image has."""
    return np.bincount(annotations.image[keep], minlength=len(annotations.names)).astype(np.float64)
