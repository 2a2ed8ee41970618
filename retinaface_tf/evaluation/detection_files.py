"""The standard result layout of WIDER FACE: `event/photo.txt` with name, count, then `x y w h score` lines."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinaface_tf.annotations.fddb import read_blocks
from retinaface_tf.annotations.read import locate_files
from retinaface_tf.annotations.text import LARGEST, read_lines, shorten
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike


class ImageDetections(NamedTuple):
    """What was found in one photo: the part of `retinaface_tf.Detections` that scoring needs.

    Attributes:
        boxes: Float64 `[N, 4]`, `xyxy` pixels.
        scores: Float64 `[N]`, any range.
        landmarks: Float64 `[N, 5, 2]` pixels, or None where they were not kept.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray | None = None


MOST = 10_000_000  # detections in a file
NOTHING = ImageDetections(np.zeros((0, 4)), np.zeros(0))


def write_detection_file(path: PathLike, detections: Any, *, integer_boxes: bool = False) -> None:
    """Write one photo's detections atomically, so an interrupted run leaves no partial file.

    `integer_boxes` cuts the corners to integers, as the widespread PyTorch version writes them.
    """
    path = Path(path)
    boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
    if integer_boxes:
        boxes = truncate(boxes)
    lines = [path.stem, str(len(boxes))]
    for (x1, y1, x2, y2), score in zip(boxes, np.asarray(detections.scores, np.float64), strict=True):
        numbers = (x1, y1, x2 - x1, y2 - y1)
        # Ten digits keep a float32 exactly; `repr` keeps equal scores equal and different ones different.
        lines.append(" ".join(f"{number:.10g}" for number in numbers) + f" {float(score)!r}")
    with atomic_write(path) as file:
        file.write("\n".join(lines) + "\n")


def read_detection_file(path: PathLike) -> ImageDetections:
    """Read one photo's detections, in the file's order.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The count and the lines differ, or something is not a finite number; names file and line.
    """
    path = Path(path)
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        del lines[-1]
    try:
        count = _parse_count(lines[1])
        numbers = _parse_rows(lines[2:])
        well_formed = len(lines) - 2 == count
    except (IndexError, ValueError):
        well_formed = False
    if not well_formed:
        raise ValueError(f"{path}: {_complaint(lines)}. Expected a name, a count, then `x y w h score` lines")
    if count == 0:
        return NOTHING
    boxes = numbers[:, :4].copy()
    boxes[:, 2:] += boxes[:, :2]
    return ImageDetections(boxes, numbers[:, 4])


def read_detections(directory: PathLike, names: Collection[str]) -> dict[str, ImageDetections]:
    """Read the detections of many photos: `event/photo.txt` in a folder. A photo without a file is left out.

    Raises:
        FileNotFoundError: No folder, or none of the photos has a file in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"no folder of detections at {directory}: expected event/photo.txt files in it")
    paths = locate_files(directory, [f"{name}.txt" for name in names])
    found = {name: read_detection_file(paths[f"{name}.txt"]) for name in names if f"{name}.txt" in paths}
    if not found:
        raise FileNotFoundError(f"none of the {len(names)} photos has a file in {directory}: expected event/photo.txt")
    return found


def read_detection_list(path: PathLike) -> dict[str, ImageDetections]:
    """Read one FDDB result file, of all photos one after the other: dict name -> `ImageDetections` in `xyxy`."""
    found = {}
    for name, rows in read_blocks(path, columns=5).items():
        boxes = rows[:, :4].copy()
        boxes[:, 2:] += boxes[:, :2]
        found[name] = ImageDetections(boxes, rows[:, 4]) if len(rows) else NOTHING
    return found


def truncate(boxes: np.ndarray) -> np.ndarray:
    """Corners cut towards 0. Rounded at 1e-6 first: 20.1 + 9.9 read back as 29.999999999 is still 30."""
    return np.trunc(np.round(boxes, 6))


def _parse_rows(lines):
    """Lines of x y w h score as float64 `[N, 5]`; ValueError if one is no such line."""
    rows = [line.split() for line in lines]
    if not all(line.isascii() and "_" not in line for line in map(" ".join, rows)):  # which Python takes for numbers
        raise ValueError
    numbers = np.array(rows, np.float64).reshape(-1, 5)
    if not np.isfinite(numbers).all() or (np.abs(numbers[:, :4]) > LARGEST).any():
        raise ValueError
    return numbers


def _parse_count(line):
    count = float(line) if line.isascii() and "_" not in line else -1.0
    if not (0 <= count <= MOST and count.is_integer()):
        raise ValueError(line)
    return int(count)


def _complaint(lines):
    if len(lines) < 2:
        return f"{len(lines)} lines"
    try:
        count = _parse_count(lines[1])
    except ValueError:
        return f"line 2 is {shorten(lines[1])}, not a count"
    for number, line in enumerate(lines[2:], start=3):
        try:
            well_formed = len(_parse_rows([line])) == 1
        except ValueError:
            well_formed = False
        if not well_formed:
            return f"line {number} is {shorten(line)}"
    return f"line 2 promises {count} detections, {len(lines) - 2} follow"
