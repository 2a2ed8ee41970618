"""The summary of a finished run: best epoch, files, time, next commands, and plots."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.text import command_line, pluralize
from retinaface_tf.evaluation.plots import plot_curves
from retinaface_tf.evaluation.widerface import curve
from retinaface_tf.image.drawing import contact_sheet, draw

if TYPE_CHECKING:
    from retinaface_tf.training.validation import Validation

SUMMARY_FILE = "summary.json"
GRID = 12  # validation photos in the grid
SHOWN_SCORE = 0.5


def summarize(output: Path, monitor: str | None, model: Path, best: Path) -> dict[str, Any]:
    """Read `log.csv` of a finished run and write its summary; `monitor` is the name of the validation score.

    Returns:
        dict with "epochs", "seconds", "monitor", "start" and "best" (dict of "epoch" and the scores, or `None`) and
        "files", also in `summary.json`.
    """
    rows = read_rows(output / "log.csv")
    trained = [row for row in rows if row["epoch"] > 0]
    scored = [row for row in trained if monitor and not math.isnan(row.get(monitor, math.nan))]
    start = next((row for row in rows if row["epoch"] == 0), None)

    def scores(row):
        found = {name: row[name] for name in row if name.startswith("val_")}
        return {"epoch": int(row["epoch"]), **{name: None if math.isnan(x) else x for name, x in found.items()}}

    chosen = max(scored, key=lambda row: row[monitor or ""]) if scored else None
    summary = {
        "epochs": len(trained),
        "seconds": round(sum(row.get("seconds", 0.0) for row in trained), 1),
        "monitor": monitor,
        "start": scores(start) if start else None,
        "best": scores(chosen) if chosen else None,
        "files": {"model": str(model), **({"best": str(best)} if chosen and best.exists() else {})},
    }
    with atomic_write(output / SUMMARY_FILE) as file:
        file.write(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def describe(summary: Mapping[str, Any], plots: Sequence[Path] = ()) -> str:
    """The summary as text, with the plots that were drawn, if any, and the next commands."""
    files, monitor = summary["files"], summary["monitor"]
    lines = [f"trained for {pluralize(summary['epochs'], 'epoch')} in {format_seconds(summary['seconds'])}"]
    best, start = summary["best"], summary["start"]
    model = files.get("best", files["model"])
    if best and monitor:
        before = f", before training {start[monitor]:.3f}" if start and start[monitor] is not None else ""
        lines.append(f"best epoch: {best['epoch']}, {monitor} {best[monitor]:.3f}{before}")
        if start and start[monitor] is not None and best[monitor] <= start[monitor]:
            lines.append("no epoch was better than before training: try a lower learning rate, or more photos")
    if "best" in files:
        lines.append(f"{files['best']}: the weights of the best epoch")
    lines.append(f"{files['model']}: the weights after the last epoch")
    if plots:
        lines.append(f"{plots[0].parent}: {', '.join(path.name for path in plots)}")
    lines += [
        "next steps:",
        *(f"  {command_line('retinaface-tf', *words)}" for words in _next_commands(model)),
    ]
    return "\n".join(lines)


def _next_commands(model):
    folder = Path(model).parent
    labels = ("--images", "PHOTOS", "--ground-truth", "LABELS", "--detections", folder / "detections")
    return [
        ("detect", "--model", model, "photo.jpg"),
        ("evaluate", "photos", "--model", model, *labels),
        ("export", "tflite", "--model", model, "--output", folder / "faces.tflite"),
    ]


def format_seconds(seconds: float) -> str:
    """A time such as "42 s", "12 min" or "3 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def draw_plots(output: Path, validation: Validation | None) -> list[Path]:
    """Draw the curves of a run, and with a validation its precision-recall curves and a grid of photos: PNG files.

    The validation has been called with the model to show. ImportError if matplotlib is missing.
    """
    steps, epochs = read_rows(output / "steps.csv"), read_rows(output / "log.csv")
    paths = []

    def curves(name, found, **options):
        found = {label: (x, y) for label, (x, y) in found.items() if len(x)}
        if found:
            plot_curves(output / name, found, **options)
            paths.append(output / name)

    left_out = {"step", "learning_rate", "faces_per_second"}
    names = [name for name in (steps[0] if steps else {}) if name not in left_out]
    curves("losses.png", {name: _column(steps, "step", name) for name in names}, x_label="step", y_label="loss")
    rate = {"learning rate": _column(steps, "step", "learning_rate")}
    curves("learning_rate.png", rate, x_label="step", y_label="learning rate")
    scores = [name for name in {key: None for row in epochs for key in row} if name.startswith("val_ap_")]
    if scores:
        found = {name.removeprefix("val_ap_"): _column(epochs, "epoch", name) for name in scores}
        curves("ap.png", found, x_label="epoch (0: before training)", y_label="AP", y_range=(0, 1), markers=True)
    if validation is not None and validation.matching is not None:
        found = {}
        for name, keep in validation.subsets.items():
            precision, recall = curve(validation.matching, keep)
            found[name] = (recall, precision)
        limits = {"x_range": (0, 1), "y_range": (0, 1.02)}
        curves("precision_recall.png", found, x_label="recall", y_label="precision", **limits)
        path = output / "validation.png"
        with atomic_write(path, "wb") as file:
            _grid(validation).save(file, "PNG")
        paths.append(path)
    return paths


def _grid(validation):
    """The first validation photos, spread over the set, each with its labels and with what was found."""
    annotations = validation.annotations
    chosen = np.unique(np.linspace(0, len(annotations.names) - 1, min(GRID, len(annotations.names))).round()).astype(
        int
    )
    offsets, tiles = annotations.offsets(), []
    for index in chosen:
        name = annotations.names[index]
        image, found = validation.read(name), validation.detections[name]
        boxes = annotations.boxes[offsets[index] : offsets[index + 1]]
        kept = found.scores >= SHOWN_SCORE
        landmarks = found.landmarks if found.landmarks is not None else np.zeros((len(kept), 5, 2), np.float32)
        shown = SimpleNamespace(
            boxes=found.boxes[kept], scores=found.scores[kept], landmarks=landmarks[kept], vertices=None
        )
        empty = {"landmarks": np.zeros((len(boxes), 5, 2)), "visible": np.full((len(boxes), 5), -1)}
        none = {"boxes": boxes[:0], "landmarks": np.zeros((0, 5, 2)), "visible": np.zeros((0, 5), int)}
        tiles.append({"image": image, "boxes": boxes, **empty, "caption": f"labels: {len(boxes)}"})
        tiles.append({"image": np.asarray(draw(image, shown)), **none, "caption": f"found: {kept.sum()}"})
    return contact_sheet(tiles, columns=6, tile=280)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a log as numbers, NaN where a cell is empty: list of dicts, empty without a file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(cell or "nan") for name, cell in row.items()} for row in csv.DictReader(file)]


def _column(rows, x, y):
    pairs = [(row[x], row[y]) for row in rows if y in row and not math.isnan(row[y])]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
