"""Plots of an evaluation, and pictures of its worst errors. Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import require
from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.landmarks import (
    NORMALIZERS,
    cumulative_error,
    face_size,
    landmark_distances,
    mean_errors,
)
from retinaface_tf.evaluation.runner import read_image
from retinaface_tf.evaluation.widerface import IOU_THRESHOLD, curve, judge
from retinaface_tf.image.drawing import contact_sheet, save_picture

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.widerface import Matching


FIGURE = "matplotlib.figure"  # the object interface: no display, no global state, safe beside a user's own pyplot


def plot_curves(
    path: PathLike,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    markers: bool = False,
) -> None:
    """Draw named curves, dict label -> `(x, y)`, into one picture; the suffix chooses the format (png, svg, pdf).

    `x_range` and `y_range` are `(low, high)`; `markers` shows the points: for few, measured ones.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the suffix is not a picture format.
    """
    figure = require(FIGURE, "plots", "a plot").Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (x, y)) in enumerate(curves.items()):
        # Line styles as well as colors: readable in gray and by the color-blind.
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(x, y, style, label=label, linewidth=1.6, marker="o" if markers else None, markersize=4)
    if log_x:  # before the limits, which would otherwise be those of a linear axis
        axes.set_xscale("log")
    _label(axes, x_range=x_range, y_range=y_range, xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best", fontsize=9)
    _save(figure, path)


def plot_bars(
    path: PathLike,
    values: Mapping[str, float | None],
    *,
    y_label: str,
    title: str | None = None,
    y_range: tuple[float, float] | None = None,
) -> None:
    """Draw named bars, their values above them; a bar of None does not exist."""
    width = max(6.4, 0.42 * len(values) + 2)
    figure = require(FIGURE, "plots", "a plot").Figure(figsize=(width, 4.8), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(range(len(values)), [value or 0 for value in values.values()], color="#3b6ea5")
    axes.bar_label(bars, [f"{value:.2f}" if value is not None else "none" for value in values.values()], fontsize=8)
    axes.set_xticks(range(len(values)), list(values), rotation=60, ha="right", fontsize=8)
    _label(axes, x_range=None, y_range=y_range, ylabel=y_label, title=title)
    _save(figure, path)


def plot_precision_recall(path: PathLike, curves: Mapping[str, tuple[Any, Any]], title: str | None = None) -> None:
    """Draw curves of recall and precision: dict label -> `(recall, precision)`."""
    whole = (0, 1.02)
    plot_curves(path, curves, x_label="recall", y_label="precision", title=title, x_range=whole, y_range=whole)


def plot_widerface(folder: PathLike, annotations: Annotations, matching: Matching, report: Mapping[str, Any]) -> None:
    """Draw the precision-recall curves, and AP by face height and by event, of a WIDER FACE report: three pictures."""
    folder = Path(folder)
    curves = {}
    for name, keep in {**annotations.subsets, "all": np.ones(len(annotations.boxes), bool)}.items():
        precision, recall = curve(matching, keep)
        curves[f"{name.capitalize()} (AP {100 * (report['ap'][name] or 0):.2f})"] = (recall, precision)
    title = f"WIDER FACE, {pluralize(report['photos'], 'photo')}"
    plot_precision_recall(folder / "precision_recall.png", curves, title)
    heights = {
        f"{row['from']:.0f} to {row['to']:.0f}" if row["to"] else f"{row['from']:.0f}+": row["ap"]
        for row in report["by_height"]
    }
    plot_bars(folder / "ap_by_height.png", heights, y_label="AP by face height in pixels", y_range=(0, 1.08))
    events = {event: row["ap"] for event, row in report["by_event"].items() if row["photos"]}
    plot_bars(folder / "ap_by_event.png", events, y_label="AP", title=title, y_range=(0, 1.08))


def plot_cumulative_error(
    path: PathLike, landmarks: np.ndarray, boxes: np.ndarray | None, predicted: np.ndarray, threshold: float
) -> None:
    """Draw the share of faces up to each landmark error, for every normalizer that the data allows."""
    thresholds = np.linspace(0, threshold, 201)
    curves = {}
    for name in NORMALIZERS if boxes is not None else NORMALIZERS[:1]:
        errors = mean_errors(landmark_distances(predicted, landmarks, face_size(landmarks, boxes, name)))
        curves[name] = (thresholds, cumulative_error(errors, thresholds))
    labels: dict[str, Any] = {"x_label": "normalized mean error", "y_label": "share of faces"}
    plot_curves(path, curves, **labels, x_range=(0, threshold), y_range=(0, 1.02))


def _label(axes, *, x_range, y_range, **texts):
    axes.set(**texts)
    # `set(xlim=None)` freezes what the limits are now: leave them alone instead.
    if x_range is not None:
        axes.set_xlim(x_range)
    if y_range is not None:
        axes.set_ylim(y_range)


def _save(figure, path):
    kind = Path(path).suffix[1:]
    try:
        with atomic_write(path, "wb") as file:
            figure.savefig(file, dpi=120, format=kind or "png")
    except ValueError as error:
        raise ValueError(f"cannot draw into {path}: {error}") from error


CONTEXT = 1.0  # how much is shown on each side of the box, in sides of it
TILE = 200  # pixels


class DetectionError(NamedTuple):
    """One miss or false positive: the photo, its box (float64 `[4]`, `xyxy` pixels), and a few words."""

    name: str
    box: np.ndarray
    caption: str


def find_misses(
    annotations: Annotations, matching: Matching, keep: np.ndarray, number: int, *, score_threshold: float = 0.5
) -> list[DetectionError]:
    """The largest faces of `keep` that no detection of at least `score_threshold` hit: list of `DetectionError`."""
    best = np.zeros(len(annotations.boxes))
    hits = matching.iou >= IOU_THRESHOLD
    np.maximum.at(best, matching.face[hits], matching.scores[hits])
    heights = annotations.boxes[:, 3] - annotations.boxes[:, 1]
    missed = np.flatnonzero(keep & (best < score_threshold))
    return [
        DetectionError(
            annotations.names[annotations.image[face]],
            annotations.boxes[face],
            f"{heights[face]:.0f} px, " + (f"score {best[face]:.2f}" if best[face] else "no box"),
        )
        for face in missed[np.argsort(-heights[missed], kind="stable")][:number]
    ]


def find_alarms(
    annotations: Annotations, detections: Mapping[str, Any], matching: Matching, keep: np.ndarray, number: int
) -> list[DetectionError]:
    """The false positives with the highest scores: list of `DetectionError`; captions give the overlap with a face."""
    proposal, hit = judge(matching, keep)
    wrong = np.flatnonzero(proposal & ~hit)
    rank = np.arange(len(matching.image)) - np.searchsorted(matching.image, matching.image)  # within the photo
    errors = []
    for index in wrong[np.argsort(-matching.scores[wrong], kind="stable")][:number]:
        name = annotations.names[matching.image[index]]
        order = np.argsort(-np.asarray(detections[name].scores), kind="stable")
        overlap = matching.iou[index]
        what = "second box" if overlap >= IOU_THRESHOLD else f"IoU {overlap:.2f}" if overlap > 0 else "no label"
        box = np.asarray(detections[name].boxes, np.float64)[order[rank[index]]]
        errors.append(DetectionError(name, box, f"{matching.scores[index]:.2f}, {what}"))
    return errors


def draw_errors(
    path: Path, errors: Sequence[DetectionError], annotations: Annotations, photos: Mapping[str, PathLike]
) -> None:
    """Draw each error with its surroundings into one picture: labels green, errors orange. `photos` may lack some."""
    offsets = annotations.offsets()
    number = {name: index for index, name in enumerate(annotations.names)}
    tiles = []
    for error in errors:
        if error.name not in photos:
            continue
        side = int(np.ceil((1 + 2 * CONTEXT) * (error.box[2:] - error.box[:2]).max()))
        left, top = np.floor((error.box[:2] + error.box[2:]) / 2 - side / 2).astype(int)
        photo = Image.fromarray(read_image(photos[error.name])).crop((left, top, left + side, top + side))
        scale = TILE / side
        index = number[error.name]
        labels = annotations.boxes[offsets[index] : offsets[index + 1]]
        boxes = (np.concatenate([labels, error.box[None]]) - [left, top, left, top]) * scale
        tiles.append(
            {
                "image": np.asarray(photo.resize((TILE, TILE), Image.Resampling.BILINEAR)),
                "boxes": boxes,
                "landmarks": np.zeros((len(boxes), 5, 2)),
                "visible": np.full((len(boxes), 5), -1),
                "invalid": np.arange(len(boxes)) == len(labels),
                "caption": f"{error.name.rsplit('/')[-1][-14:]}  {error.caption}",
            }
        )
    save_picture(contact_sheet(tiles, columns=5, tile=TILE), path)
