"""All numbers of one WIDER FACE run in one dictionary, and that dictionary as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.annotations.annotations import FLAG_MEANINGS, FLAGS, UNKNOWN
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.widerface import (
    MAP_IOU_THRESHOLDS,
    average_precision,
    count,
    match,
    percentile_interval,
    precision_recall,
    subset_ap,
)

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.widerface import Matching


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
        seed: Integer, of the bootstrap.
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
        _row(f"AP, {report['boxes']} boxes", [_percent(report["ap"][name]) for name in names]),
    ]
    if "ap_with_integer_boxes" in report:
        lines.append(_row("AP, integer boxes", [_percent(report["ap_with_integer_boxes"][name]) for name in names]))
    if "interval_95" in report:
        ends = [report["interval_95"][name] for name in names]
        lines.append(_row("95 % interval", [f"{_percent(low)}-{_percent(high)}" for low, high in ends]))
    if "map_50_95" in report:
        lines.append(_row("mAP 0.5:0.95", [_percent(report["map_50_95"][name]) for name in names]))
        lines.append(
            "mean of each photo's own AP: "
            f"{_percent(report['per_image']['ap'])}, mAP 0.5:0.95 {_percent(report['per_image']['map_50_95'])}"
        )
        lines += ["", _row("height, pixels", ["faces", "AP"])]
        for row in report["by_height"]:
            band = f"{row['from']:.0f} to {row['to']:.0f}" if row["to"] else f"{row['from']:.0f} and more"
            lines.append(_row(band, [row["faces"], _percent(row["ap"])]))
        for flag, values in report["by_flag"].items():
            lines += ["", _row(flag, ["faces", "AP"])]
            lines += [_row(value, [row["faces"], _percent(row["ap"])]) for value, row in values.items()]
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


def _percent(value):
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

    Scores stay normalized over the whole set, so that an event is judged as it was in the total.
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
    and the two must not be compared. The port also counts at most one false alarm a face; we count all.
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
    """Confidence interval of AP over photos drawn again with replacement.

    Args:
        annotations: `Annotations`.
        matching: `Matching`. Score normalization and matching stay as they are: only photos are drawn.
        keep: Bool `[F]`: the faces that count.
        resamples: Integer, draws.
        confidence: Float in (0, 1).
        seed: Integer.

    Returns:
        `(low, high)` floats.
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
