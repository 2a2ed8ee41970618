"""Anybody's labelled photos: a CSV with a face a line."""

import csv
from pathlib import Path

import numpy as np

from retinaface_tf.annotations.wider_ground_truth import WiderGroundTruth
from retinaface_tf.common.types import PathLike

COLUMNS = ("file", "x1", "y1", "x2", "y2")


def read_box_csv(path: PathLike) -> tuple[WiderGroundTruth, dict[str, str]]:
    """Read faces from a CSV whose first line names the columns `file`, `x1`, `y1`, `x2`, `y2`; others are left alone.

    A photo without faces is a line with empty coordinates.

    Returns:
        `(ground_truth, files)`: a `WiderGroundTruth` with the subset `all`, named by file without suffix, and a dict
        name -> file as written.

    Raises:
        ValueError: A column is missing, or a line is broken; names the line.
    """
    files, number, boxes, image = {}, {}, [], []
    with Path(path).open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no column {missing[0]!r}. Expected a first line with {', '.join(COLUMNS)}")
        for row in reader:
            name = str(Path(row["file"]).with_suffix(""))
            files.setdefault(name, row["file"])
            number.setdefault(name, len(number))
            cells = [row[column] for column in COLUMNS[1:]]
            if not any(cells):
                continue
            try:
                boxes.append([float(cell) for cell in cells])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: expected four numbers, not {cells}") from error
            image.append(number[name])
    if not files:
        raise ValueError(f"{path} has no labelled photo")
    order = np.argsort(np.array(image, np.int64), kind="stable")
    boxes = np.array(boxes, np.float64).reshape(-1, 4)[order]
    image = np.array(image, np.int64)[order]
    return WiderGroundTruth(tuple(files), boxes, image, {"all": np.ones(len(boxes), bool)}), files
