"""Annotated landmarks from four layouts, all brought to five points in the order of the detector.

- `csv`: by the names of its header, as `convert custom` reads and `label` writes it: `file`, `left_eye_x` …, and maybe
  a box. Without such names by place: file, then x and y of left eye, right eye, nose, left and right mouth corner; then
  x1, y1, x2, y2 of the face's box, or nothing.
- `list`: the list of the five-point sets (TCDCN, MTCNN, and AFLW's test lists in that form): path, box as left, right,
  top, bottom, then the five points as x y.
- `aflw`: AFLW's own SQLite file, 21 points, those that cannot be seen missing.
- `pts`: a folder of 300-W `.pts` files, 68 points that count pixels from 1.

Left and right are as seen in the image in all of them.
"""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinaface_tf.annotations.custom import BOX_COLUMNS, FILE_COLUMNS, POINTS
from retinaface_tf.annotations.points_file import read_pts_file
from retinaface_tf.common.types import PathLike

POINT_COLUMNS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
AFLW_FEATURES = ("LeftEyeCenter", "RightEyeCenter", "NoseCenter", "MouthLeftCorner", "MouthRightCorner")


class LabelledFaces(NamedTuple):
    """Annotated faces.

    Attributes:
        files: List of N image paths, relative to the images' folder; one image may come several times.
        landmarks: Float64 `[N, 5, 2]`, pixels; NaN where not annotated.
        boxes: Float64 `[N, 4]`, `xyxy` pixels, or None.
    """

    files: list[str]
    landmarks: np.ndarray
    boxes: np.ndarray | None


def read_csv(path: PathLike) -> LabelledFaces:
    """Read the `csv` layout; a first line without numbers is a header. ValueError names file and line."""
    files, rows = [], []
    with Path(path).open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if number == 1 and {name.strip() for name in row} & set(POINT_COLUMNS):
                return _read_named(path, [name.strip() for name in row], csv.reader(lines))
            if not row or (number == 1 and not _is_number(row[-1])):
                continue
            files.append(row[0])
            rows.append(_numbers(path, number, row[1:], (10, 14)))
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{path}: some lines have a box and some have none")
    table = _table(path, rows)
    return LabelledFaces(files, table[:, :10].reshape(-1, 5, 2), table[:, 10:] if table.shape[1] == 14 else None)


def _read_named(path, header, lines):
    """The `csv` layout by the names of its header. Faces without any landmark are left out: nothing can be measured."""
    file_column = next((name for name in FILE_COLUMNS if name in header), None)
    missing = [name for name in POINT_COLUMNS if name not in header]
    if file_column is None or missing:
        missing = ([] if file_column else ["file"]) + missing
        raise ValueError(f"{path}: its header names landmarks, but not {', '.join(missing)}")
    box_columns = next((names for names in BOX_COLUMNS if set(names) <= set(header)), ())
    files, rows = [], []
    for number, row in enumerate(lines, start=2):
        if not row:
            continue
        cells = dict(zip(header, row, strict=False))
        words = [cells.get(name, "").strip() or "nan" for name in (*POINT_COLUMNS, *box_columns)]
        if not all(map(_is_number, words)):
            raise ValueError(f"{path}, line {number}: landmarks and boxes must be numbers or empty")
        values = [float(word) for word in words]
        if not np.isnan(values[:10]).all():
            files.append(cells[file_column])
            rows.append(values)
    table = _table(path, rows)
    landmarks, boxes = table[:, :10].reshape(-1, 5, 2), table[:, 10:]
    if not box_columns or np.isnan(boxes).all():
        return LabelledFaces(files, landmarks, None)
    if np.isnan(boxes).any():
        raise ValueError(f"{path}: some lines have a box and some have none")
    if box_columns == ("x", "y", "w", "h"):
        boxes[:, 2:] += boxes[:, :2]
    return LabelledFaces(files, landmarks, boxes)


def read_list(path: PathLike) -> LabelledFaces:
    """Read the `list` layout. ValueError names file and line."""
    files, rows = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split()
        files.append(words[0].replace("\\", "/"))
        rows.append(_numbers(path, number, words[1:], (14,)))
    table = _table(path, rows)
    left, right, top, bottom = table[:, :4].T
    return LabelledFaces(files, table[:, 4:].reshape(-1, 5, 2), np.stack([left, top, right, bottom], axis=1))


def read_aflw(path: PathLike) -> LabelledFaces:
    """Read AFLW's SQLite file, opened read-only. ValueError if it is no such file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no AFLW database at {path}")
    marks = ",".join("?" * len(AFLW_FEATURES))
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as database:
            faces = database.execute(
                "SELECT Faces.face_id, FaceImages.filepath, FaceRect.x, FaceRect.y, FaceRect.w, FaceRect.h "
                "FROM Faces JOIN FaceImages ON Faces.file_id = FaceImages.file_id "
                "JOIN FaceRect ON Faces.face_id = FaceRect.face_id ORDER BY Faces.face_id"
            ).fetchall()
            points = database.execute(
                "SELECT FeatureCoords.face_id, FeatureCoordTypes.descr, FeatureCoords.x, FeatureCoords.y "
                "FROM FeatureCoords JOIN FeatureCoordTypes ON FeatureCoords.feature_id = FeatureCoordTypes.feature_id "
                f"WHERE FeatureCoordTypes.descr IN ({marks})",
                AFLW_FEATURES,
            ).fetchall()
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is not AFLW's SQLite file: {error}") from error
    row_of = {face: row for row, (face, *_) in enumerate(faces)}
    landmarks = np.full((len(faces), 5, 2), np.nan)
    for face, feature, x, y in points:
        if face in row_of:
            landmarks[row_of[face], AFLW_FEATURES.index(feature)] = x, y
    boxes = np.array([row[2:] for row in faces], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return LabelledFaces([row[1] for row in faces], landmarks, boxes)


def read_pts(directory: PathLike) -> LabelledFaces:
    """Read a folder of 300-W `.pts` files, sub-folders too. An eye is the mean of its six points, the nose its tip.

    The box is the tight box of all 68 points, as 300-W's own normalisation by box uses it. The image is the file of the
    same name ending in .jpg or .png.
    """
    directory = Path(directory)
    paths = sorted(directory.rglob("*.pts"))
    if not paths:
        raise FileNotFoundError(f"no .pts file in {directory}")
    files, landmarks, boxes = [], [], []
    for path in paths:
        points = read_pts_file(path)
        image = next((path.with_suffix(end) for end in (".jpg", ".png") if path.with_suffix(end).exists()), None)
        files.append((image or path.with_suffix(".jpg")).relative_to(directory).as_posix())
        eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
        landmarks.append([*eyes, points[30], points[48], points[54]])
        boxes.append([*points.min(axis=0), *points.max(axis=0)])
    return LabelledFaces(files, np.array(landmarks), np.array(boxes))


READERS = {"csv": read_csv, "list": read_list, "aflw": read_aflw, "pts": read_pts}


def _numbers(path, number, words, lengths):
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) not in lengths:
        expected = " or ".join(map(str, lengths))
        raise ValueError(f"{path}, line {number}: expected a file and {expected} numbers, not {len(words)} words")
    return values


def _table(path, rows):
    if not rows:
        raise ValueError(f"{path} has no annotated face")
    return np.array(rows, np.float64)


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True
