"""Landmark sets: the five-point list, AFLW's SQLite file and folders of 300-W `.pts` files.

All are brought to five landmarks in the order of `LANDMARK_NAMES`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Container
from contextlib import closing
from pathlib import Path

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.text import parse_file, parse_numbers, read_lines, read_text, shorten, visible_files
from retinaface_tf.common.types import NOT_LABELED, VISIBLE, PathLike

AFLW_FEATURES = ("LeftEyeCenter", "RightEyeCenter", "NoseCenter", "MouthLeftCorner", "MouthRightCorner")
AFLW_TABLES = ("Faces", "FaceImages", "FaceRect", "FeatureCoords", "FeatureCoordTypes")
MAX_ROWS, MAX_TEXT, MAX_SECONDS = 5_000_000, 1_000_000, 120  # of AFLW's database, which has 500,000 rows of points
LIST_VALUES = 14  # box and five landmarks


def read_list(path: Path, images: Path | None = None, classes: Container[str] = ()) -> Annotations:
    """Read the list of the five-point sets (TCDCN, MTCNN, and AFLW's test lists in that form).

    A line is a path, the box as left, right, top, bottom, then five landmarks as x y.
    """
    faces: dict[str, list] = {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}:{number}"
        values = parse_numbers(words[1:], LIST_VALUES, f"{where}: a file, the box and five landmarks")
        faces.setdefault(parse_file(words[0], where), []).append(values)
    if not faces:
        raise ValueError(f"{path}: has no annotated face")
    parts = []
    for file, rows in faces.items():
        left, right, top, bottom = np.array(rows)[:, :4].T
        points = np.array(rows)[:, 4:].reshape(-1, 5, 2)
        parts.append(_annotate(file, np.stack([left, top, right, bottom], axis=1), points))
    return join(parts)


def read_aflw(path: Path, images: Path | None = None, classes: Container[str] = ()) -> Annotations:
    """Read AFLW's SQLite file, opened read-only: 21 points, of which five are taken; those not seen are missing."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no AFLW database at {path}")
    marks = ",".join("?" * len(AFLW_FEATURES))
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            _limit(database)
            rows = database.execute(
                "SELECT Faces.face_id, FaceImages.filepath, FaceRect.x, FaceRect.y, FaceRect.w, FaceRect.h "
                "FROM Faces JOIN FaceImages ON Faces.file_id = FaceImages.file_id "
                "JOIN FaceRect ON Faces.face_id = FaceRect.face_id ORDER BY Faces.face_id"
            ).fetchmany(MAX_ROWS)
            coordinates = database.execute(
                "SELECT FeatureCoords.face_id, FeatureCoordTypes.descr, FeatureCoords.x, FeatureCoords.y "
                "FROM FeatureCoords JOIN FeatureCoordTypes ON FeatureCoords.feature_id = FeatureCoordTypes.feature_id "
                f"WHERE FeatureCoordTypes.descr IN ({marks})",
                AFLW_FEATURES,
            ).fetchmany(MAX_ROWS)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not AFLW's SQLite file ({shorten(str(error))})") from None
    if MAX_ROWS in (len(rows), len(coordinates)):
        raise ValueError(f"{path}: not AFLW's SQLite file (more than {MAX_ROWS:,} rows)")
    points = {face: np.full((5, 2), np.nan) for face, *_ in rows}
    for face, feature, x, y in coordinates:
        if face in points:
            where = f"{path}: {feature} of face {face}"
            points[face][AFLW_FEATURES.index(feature)] = parse_numbers((x, y), 2, where)
    faces: dict[str, list] = {}
    for face, file, *box in rows:
        x, y, w, h = parse_numbers(box, 4, f"{path}: box of face {face}")
        rows_of_photo = faces.setdefault(parse_file(file, f"{path}: face {face}"), [])
        rows_of_photo.append(((x, y, x + w, y + h), points[face]))
    return join(_annotate(file, *zip(*rows, strict=True)) for file, rows in faces.items())


def _limit(database):
    """Limit what a database from others may compute: tables may be endless queries, and texts very long."""
    kinds = dict(database.execute("SELECT name, type FROM sqlite_master"))
    if not_tables := [name for name in AFLW_TABLES if kinds.get(name) != "table"]:
        raise sqlite3.DatabaseError(f"no table {not_tables[0]}")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
    deadline = time.monotonic() + MAX_SECONDS
    database.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)


def read_pts(directory: Path, images: Path | None = None, classes: Container[str] = ()) -> Annotations:
    """Read a folder of 300-W `.pts` files of 68 points. An eye is the mean of its six points, the nose its tip.

    The box is the tight box of all 68 points, as 300-W's own normalization by box uses it. The photo is the file of the
    same name ending in .jpg or .png.
    """
    directory = Path(directory)
    paths = list(visible_files(directory, ".pts"))
    if not paths:
        raise FileNotFoundError(f"no .pts file in {directory}")
    parts = []
    for path in paths:
        points = read_pts_file(path)
        photo = next((path.with_suffix(end) for end in (".jpg", ".png") if path.with_suffix(end).exists()), None)
        file = (photo or path.with_suffix(".jpg")).relative_to(directory).as_posix()
        eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        parts.append(_annotate(file, [box], [[*eyes, points[30], points[48], points[54]]]))
    return join(parts)


def read_pts_file(path: PathLike) -> np.ndarray:
    """All 68 points of one `.pts` file: float64 `[68, 2]`, pixels counted from 0 (the file counts from 1)."""
    text = read_text(path)
    inside = text.partition("{")[2].partition("}")[0].split()
    try:
        return np.reshape(parse_numbers(inside, 136, f"{path}: x and y of 68 points"), (68, 2)) - 1
    except ValueError as error:
        raise ValueError(f"{path} is not a .pts file of 68 points: {error}") from None


def _annotate(file, boxes, landmarks):
    landmarks = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    visible = np.where(np.isnan(landmarks).any(-1), NOT_LABELED, VISIBLE)
    return annotate_photo(file, boxes, landmarks, visible)
