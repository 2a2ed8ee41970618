"""Read and write CSV files with one face per line.

The header, in any letter case, names `file` and the columns of a box (`x1 y1 x2 y2`, `xmin …` or `x y w h`), of
landmarks (`left_eye_x`, `left_eye_y` … for each of `LANDMARK_NAMES`; empty where not labeled), or of both.
`left_eye_visible` … may hold 0 for
occluded, `label` is the class, `width` and `height` are the photo's, `score` is that of a teacher's label, and `ignore`
1 marks a region that is neither a face nor background. A line with an empty box and no landmark is a photo without
faces.

Without a header, by place: file, ten numbers (x and y of the five landmarks) and maybe four of a box.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.text import parse_file, parse_flag, parse_numbers, parse_size, read_text, shorten
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import LANDMARK_NAMES, NOT_LABELED, OCCLUDED, VISIBLE, PathLike

FILE_COLUMNS = ("file", "filename", "image", "path")
BOX = ("x1", "y1", "x2", "y2")
BOX_COLUMNS = (BOX, ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "w", "h"))
CLASS_COLUMNS = ("label", "class", "category")
LANDMARK_COLUMNS = tuple(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy")
NO_BOX = [math.nan] * 4
LONGEST_HEADER = 100_000  # letters
EXPECTED = (
    "expected a header with file and x1, y1, x2, y2 (or xmin …, or x, y, w, h), or with file and landmarks "
    "(left_eye_x, left_eye_y …)"
)


def read_csv(path: Path, images: Path | None, classes: Container[str]) -> Annotations:
    """Read a CSV file. `images` is not needed."""
    header, rows = open_table(path)
    if _is_by_place(header):
        return _read_by_place(path, [header] if _are_numbers(header[1:]) else [], rows)
    reader = _Columns(path, header)
    photos: dict[str, tuple] = {}
    for row in rows:
        if any(row):
            where = f"{path}:{rows.line_num}"
            file, size, face = reader.parse(row, where, classes)
            _, faces = photos.setdefault(file, (size, []))
            faces += [] if face is None else [face]
    return _to_annotations(photos)


def open_table(path: PathLike) -> tuple[list[str], Any]:
    """The words of the first line, and a `csv.reader` of the lines after it, delimited as spreadsheets write them.

    Raises:
        OSError, ValueError: It can't be read as text. An unclosed quote or an endless cell raises `csv.Error` later.
    """
    text = read_text(path)
    first = io.StringIO(text[:LONGEST_HEADER], newline=None).readline()
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [name.strip() for name in next(rows, [])], rows


def require_cells(row: list[str], header: list[str], where: str) -> None:
    """Raise ValueError unless a line has a cell for each name of the header: a decimal comma makes more of them."""
    if len(row) != len(header):
        raise ValueError(f"{where}: expected {len(header)} values, it has {len(row)}: {shorten(','.join(row))}")


def refuse_doubles(path: PathLike, header: list[str], names: Container[str]) -> None:
    """Raise ValueError if the header has one of the names that are read more than once."""
    doubles = [name for name in dict.fromkeys(header) if name in names and header.count(name) > 1]
    if doubles:
        raise ValueError(f"{path}: the header names {doubles[0]} {header.count(doubles[0])} times")


class _Columns:
    """What the header says about the cells of a line."""

    def __init__(self, path, header):
        self.header = header = [name.lower() for name in header]
        self.file = next((name for name in FILE_COLUMNS if name in header), None)
        self.box = next((names for names in BOX_COLUMNS if set(names) <= set(header)), ())
        self.label = next((name for name in CLASS_COLUMNS if name in header), None)
        given = [name for name in LANDMARK_COLUMNS if name in header]
        self.landmarks = {name for name in LANDMARK_NAMES if f"{name}_x" in given}
        unpaired = [name for name in LANDMARK_NAMES if (f"{name}_x" in given) != (f"{name}_y" in given)]
        if not self.file or not (self.box or self.landmarks):
            raise ValueError(f"{path}: {EXPECTED}. Received: {shorten(', '.join(header), 120)}")
        if unpaired:
            raise ValueError(f"{path}: the header names one of {unpaired[0]}_x and {unpaired[0]}_y, not both")
        visible = [f"{name}_visible" for name in LANDMARK_NAMES]
        used = {self.file, self.label, *self.box, *given, *visible, "width", "height", "score", "ignore"}
        refuse_doubles(path, header, used)

    def parse(self, row, where, classes):
        """(file, size, (box, landmarks, class, ignore, score) or None where the line has no face) of a line."""
        require_cells(row, self.header, where)
        cells = dict(zip(self.header, (cell.strip() for cell in row), strict=True))
        file = parse_file(cells[self.file], where)
        size = parse_size([cells.get("width"), cells.get("height")], f"{where}: width, height")
        label = cells.get(self.label, "")
        box = [cells[name] for name in self.box]
        points = {name: [cells[f"{name}_x"], cells[f"{name}_y"]] for name in self.landmarks}
        points = {name: words for name, words in points.items() if any(words)}
        if not any(box) and not points:
            return file, size, None
        if self.label and label not in classes:
            return file, size, None
        values = parse_numbers(box, 4, f"{where}: {' '.join(self.box)}") if any(box) else NO_BOX
        if self.box == ("x", "y", "w", "h"):
            values = [*values[:2], values[0] + values[2], values[1] + values[3]]
        landmarks = np.zeros((5, 3))
        landmarks[:, 2] = NOT_LABELED
        for name, words in points.items():
            hidden = not parse_flag(cells.get(f"{name}_visible") or 1, f"{where}: {name}_visible")
            point = parse_numbers(words, 2, f"{where}: {name}_x, {name}_y")
            landmarks[LANDMARK_NAMES.index(name)] = (*point, OCCLUDED if hidden else VISIBLE)
        score = parse_numbers([cells.get("score") or 1], 1, f"{where}: score")[0]
        if not 0 <= score <= 1:
            raise ValueError(f"{where}: score: expected a number in [0, 1]. Received: {score}")
        return file, size, (values, landmarks, label, parse_flag(cells.get("ignore"), f"{where}: ignore"), score)


def _is_by_place(header):
    """Whether a first line holds numbers, or only as many words as a line by place and no name of a column."""
    if len(header) > 1 and _are_numbers(header[1:]):
        return True
    known = {*LANDMARK_COLUMNS, *BOX_COLUMNS[0], *BOX_COLUMNS[1], "w", "h"}
    return len(header) in (11, 15) and not known & set(header)


def _read_by_place(path, first, rows):
    photos: dict[str, tuple] = {}
    length = 0
    for number, row in enumerate([*first, *rows], start=2 - len(first)):
        if not any(row):
            continue
        where = f"{path}:{number}"
        if len(row) not in (11, 15):
            raise ValueError(f"{where}: expected a file and 10 or 14 numbers, it has {len(row)} values")
        length = length or len(row)
        if len(row) != length:
            raise ValueError(f"{where}: some lines have a box and some have none")
        values = parse_numbers(row[1:], len(row) - 1, f"{where}: landmarks as x y, and maybe x1 y1 x2 y2")
        landmarks = np.column_stack([np.reshape(values[:10], (5, 2)), np.full(5, VISIBLE)])
        _, faces = photos.setdefault(parse_file(row[0], where), (None, []))
        faces.append((values[10:] or NO_BOX, landmarks, "", False, 1.0))
    return _to_annotations(photos)


def _to_annotations(photos):
    parts = []
    for file, (size, faces) in photos.items():
        boxes, landmarks, labels, ignore, scores = zip(*faces, strict=True) if faces else ((),) * 5
        points = np.array(landmarks).reshape(-1, 5, 3)
        parts.append(
            annotate_photo(
                file,
                boxes,
                points[..., :2],
                points[..., 2],
                scores=scores,
                classes=labels,
                ignore=ignore,
                size=size,
            )
        )
    return join(parts)


def _are_numbers(words):
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def write_csv(path: PathLike, annotations: Annotations) -> None:
    """Write boxes and landmarks as the CSV that `read_csv` reads; pixels to two decimals.

    The columns `…_visible`, `score` and `ignore` are written where there is an occluded landmark, a score below 1 or an
    ignore region.
    """
    columns = ["file", *BOX, *LANDMARK_COLUMNS]
    occluded = bool((annotations.visible == OCCLUDED).any())
    columns += [f"{name}_visible" for name in LANDMARK_NAMES] * occluded
    scored, ignored = bool((annotations.scores != 1).any()), bool(annotations.ignore.any())
    columns += ["score"] * scored + ["ignore"] * ignored
    landmarks, offsets = annotations.landmarks_or_nan(), annotations.offsets()
    with atomic_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        for photo, name in enumerate(annotations.files):
            faces = range(offsets[photo], offsets[photo + 1])
            if not faces:
                rows.writerow([safe_cell(name), *[""] * (len(columns) - 1)])
            for face in faces:
                values = [*annotations.boxes[face], *landmarks[face].ravel()]
                cells = ["" if math.isnan(value) else f"{value:.2f}" for value in values]
                if occluded:
                    states = annotations.visible[face]
                    cells += ["" if state == NOT_LABELED else str(int(state == VISIBLE)) for state in states]
                if scored:
                    cells.append(f"{annotations.scores[face]:.3f}")
                if ignored:
                    cells.append(str(int(annotations.ignore[face])))
                rows.writerow([safe_cell(name), *cells])


def safe_cell(file: str) -> str:
    """A file name that spreadsheets do not treat as a formula: `=a.jpg` becomes `./=a.jpg`, the same file."""
    return f"./{file}" if file.startswith(("=", "+", "-", "@", "\t", "\r")) else file
