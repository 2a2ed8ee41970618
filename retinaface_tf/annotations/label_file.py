"""Labels of people, in part: a CSV with boxes or with landmarks; and the CSV that `convert custom` reads."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinaface_tf.annotations.custom import POINTS
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike

BOX = ("x1", "y1", "x2", "y2")
COLUMNS = ("file", *BOX, *(f"{point}_{axis}" for point in POINTS for axis in "xy"))


class PartLabels(NamedTuple):
    """What people said of one photo.

    Attributes:
        boxes: float64 `[N, 4]`, or `None` where only landmarks are labelled.
        landmarks: float64 `[N, 5, 2]`; NaN where not labelled.
        classes: list of N words, empty where the file has no column `label`.
    """

    boxes: np.ndarray | None
    landmarks: np.ndarray
    classes: list[str]


def read_part_labels(path: PathLike, points: Sequence[str] = POINTS) -> dict[str, PartLabels]:
    """Read a CSV whose header names `file`, then `x1` … `y2` or `left_eye_x` …, and maybe `label`.

    Args:
        path: file.
        points: names of the landmarks to believe; columns of others are left alone.

    Returns:
        dict photo -> `PartLabels`, in the file's order.

    Raises:
        ValueError: a column is missing, or a line is broken; names the line.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        has_boxes = set(BOX) <= set(columns)
        has_eyes = {f"{eye}_eye_{axis}" for eye in ("left", "right") for axis in "xy"} <= set(columns)
        if "file" not in columns or not (has_boxes or has_eyes):
            raise ValueError(
                f"{path}: expected a header with file, and x1, y1, x2, y2 or left_eye_x, left_eye_y, right_eye_x, "
                f"right_eye_y. Received: {', '.join(columns)[:120]}"
            )
        faces = {}
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row.values():
                raise ValueError(f"{where}: expected {len(columns)} values, it has fewer")
            photo = faces.setdefault(row["file"], [])
            box = _numbers([row[name] for name in BOX], where) if has_boxes else [math.nan] * 4
            if has_boxes and np.isnan(box).all():
                continue  # a photo without face
            landmarks = np.full((5, 2), np.nan)
            for index, point in enumerate(POINTS):
                if point in points and f"{point}_x" in columns:
                    landmarks[index] = _numbers([row[f"{point}_{axis}"] for axis in "xy"], where)
            photo.append((box, landmarks, row.get("label", "")))
    return {
        name: PartLabels(
            np.array([box for box, _, _ in each], np.float64).reshape(-1, 4) if has_boxes else None,
            np.array([points for _, points, _ in each], np.float64).reshape(-1, 5, 2),
            [label for _, _, label in each],
        )
        for name, each in faces.items()
    }


def write_labels(path: PathLike, photos: Mapping[str, Any]) -> None:
    """Write a dict photo -> `Labels` as the CSV that `convert custom` reads; pixels to two decimals."""
    with atomic_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name, labels in photos.items():
            if not len(labels.boxes):
                rows.writerow([name, *[""] * (len(COLUMNS) - 1)])
            for box, points in zip(labels.boxes, labels.landmarks, strict=True):
                values = [*box, *points.ravel()]
                rows.writerow([name, *("" if math.isnan(v) else f"{v:.2f}" for v in values)])


def _numbers(words, where):
    try:
        return [float(word) if word else math.nan for word in words]
    except ValueError:
        raise ValueError(f"{where}: expected numbers. Received: {words}") from None
