"""All numbers of one WIDER FACE run in one dictionary, and that dictionary as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.wider_breakdown import (
    ap_by_event,
    ap_by_flag,
    ap_by_height,
    bootstrap_ap,
    mean_ap,
    per_image_ap,
)
from retinaface_tf.evaluation.widerface import MAP_IOU_THRESHOLDS, match, subset_ap

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


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
