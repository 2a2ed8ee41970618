"""How much AP is left when photos are turned, compressed, noisy or small, and for which faces was there any?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.corruptions import CORRUPTIONS
from retinaface_tf.evaluation.detection_files import read_detections
from retinaface_tf.evaluation.runner import run_detector
from retinaface_tf.evaluation.wider_breakdown import ap_by_flag, ap_by_height, bootstrap_ap
from retinaface_tf.evaluation.wider_report import without_nan
from retinaface_tf.evaluation.widerface import match, subset_ap

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.corruptions import Corruption


def corruption_folder(directory: PathLike, corruption: Corruption) -> Path:
    """Where one corruption's detections are: `directory/rotation_90`."""
    return Path(directory) / corruption.name.replace(" ", "_")


def run_corruptions(
    detect: Callable[[Any], Any],
    photos: Mapping[str, PathLike],
    directory: PathLike,
    *,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    **options: Any,
) -> None:
    """Run a detector under every corruption, each in a folder of its own, resumably.

    Args:
        detect: As for `run_detector`.
        photos: Dict name -> path.
        directory: Folder of the folders.
        corruptions: `Corruption` objects.
        **options: `batch_size`, `settings`, `progress` of `run_detector`.
    """
    for corruption in corruptions:
        run_detector(detect, photos, corruption_folder(directory, corruption), protocol=corruption, **options)


def report_robustness(
    annotations: Annotations,
    directory: PathLike,
    *,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    resamples: int = 0,
) -> dict[str, Any]:
    """One table from the folders that `run_corruptions` wrote.

    Args:
        annotations: `Annotations` of the photos that were run.
        directory: Folder of the folders.
        corruptions: `Corruption` objects; the first is what the others are compared with.
        resamples: Bootstrap draws for the intervals of the AP over all faces; 0 for none.

    Returns:
        JSON-ready dict: `corruptions`, a list of `name`, `ap` by subset and `change` of the AP over all faces in
        points of AP; `by_height` and `by_flag` of the first corruption.
    """
    every = np.ones(len(annotations.boxes), bool)
    keeps = {"all": every, **annotations.subsets}
    rows: list[dict[str, Any]] = []
    clean: Any = None
    for corruption in corruptions:
        detections = read_detections(corruption_folder(directory, corruption), annotations.names)
        matching = match(annotations, detections)
        clean = matching if clean is None else clean
        ap = {name: subset_ap(matching, keep) for name, keep in keeps.items()}
        row = {"name": corruption.name, "ap": ap, "change": ap["all"] - (rows[0]["ap"]["all"] if rows else ap["all"])}
        if resamples:
            row["interval_95"] = bootstrap_ap(annotations, matching, keeps["all"], resamples=resamples)
        rows.append(row)
    return without_nan(
        {
            "photos": len(annotations.names),
            "faces": {name: int(keep.sum()) for name, keep in keeps.items()},
            "corruptions": rows,
            "by_height": ap_by_height(annotations, clean),
            "by_flag": ap_by_flag(annotations, clean),
        }
    )


def format_robustness(report: dict[str, Any]) -> str:
    """The report as one aligned table."""
    subsets = list(report["faces"])
    lines = [f"{pluralize(report['photos'], 'photo')}; AP in percent, change of the AP over all faces"]
    lines.append(f"{'photo':<24}" + "".join(f"{name:>9}" for name in subsets) + f"{'change':>9}")
    for row in report["corruptions"]:
        cells = "".join(f"{_percent(row['ap'][name]):>9}" for name in subsets)
        interval = row.get("interval_95")
        end = f"   95 % interval {_percent(interval[0])}-{_percent(interval[1])}" if interval else ""
        change = "-" if row["change"] is None else f"{100 * row['change']:+.2f}"
        lines.append(f"{row['name']:<24}{cells}{change:>9}{end}")
    lines += ["", f"{'faces, photo as it is':<24}{'faces':>9}{'AP':>9}"]
    for label, row in breakdown_rows(report).items():
        lines.append(f"{label:<24}{row['faces']:>9}{_percent(row['ap']):>9}")
    return "\n".join(lines)


def breakdown_rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> row with `faces` and `ap`: by height, then by blur, occlusion and pose."""
    rows = {}
    for row in report["by_height"]:
        label = f"{row['from']:.0f} to {row['to']:.0f} px" if row["to"] else f"{row['from']:.0f} px and more"
        rows[label] = row
    for flag in ("blur", "occlusion", "pose"):
        for value, row in report["by_flag"].get(flag, {}).items():
            rows[f"{flag} {value}"] = row
    return rows


def _percent(value):
    return "-" if value is None else f"{100 * value:.2f}"
