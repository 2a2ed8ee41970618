"""The three forms in which WIDER FACE is annotated -> records. No TensorFlow.

`label.txt` of RetinaFace, the official `wider_face_*_bbx_gt.txt`, and the official `wider_face_{train,val}.mat`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from retinaface_tf.annotations.record import FLAGS, NOT_LABELLED, OCCLUDED, UNKNOWN, VISIBLE, make_record
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.annotations.record import Record


BOX_VALUES = 4  # x y w h
LABEL_VALUES = (4, 19, 20)  # box; box and five triples; the same and a blur score
BBX_FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
BBX_VALUES = BOX_VALUES + len(BBX_FLAGS)  # of a line with a face
EXPECTED = "expected RetinaFace's label.txt, an official wider_face_*_bbx_gt.txt or a wider_face_*.mat"


def read_widerface(path: PathLike) -> list[Record]:
    """Read any of the three forms, told apart by their content.

    Args:
        path: the annotation file.

    Returns:
        List of `Record`, in the file's order.

    Raises:
        OSError: the file can't be read.
        ValueError: it is none of the three, or a line of it is not what it should be; the message names the line.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return read_mat(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text: {EXPECTED}") from None
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"{path}: an empty file: {EXPECTED}")
    records = read_label(path, lines) if first.lstrip().startswith("#") else read_bbx(path, lines)
    return _unique(path, records)


def read_label(path: Path, lines: list[str]) -> list[Record]:
    """RetinaFace's label.txt: `# photo`, then a line a face: x y w h, and in train five (x y occluded) and blur.

    The third number of a landmark is 0 where it is visible and 1 where it is not; all three are -1 where it is not
    labelled. (So read by the authors' release: insightface, `retinaface.py`.)
    """
    records, name, faces = [], None, []

    def finish():
        if name is not None:
            records.append(_label_record(name, faces))

    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if line.lstrip().startswith("#"):
            finish()
            name, faces = _photo_name(path, number, line.lstrip()[1:].strip()), []
            continue
        faces.append(_numbers(path, number, words, LABEL_VALUES, "x y w h, five (x y occluded), blur"))
    finish()
    return records


def _label_record(name, faces):
    full = np.full((len(faces), 20), -1.0)
    for row, values in zip(full, faces, strict=True):
        row[: len(values)] = values
    points = full[:, 4:19].reshape(-1, 5, 3)
    labelled = (points[..., 2] >= 0) & ~(points[..., :2] == -1).all(-1)
    visible = np.where(labelled, np.where(points[..., 2] == 0, VISIBLE, OCCLUDED), NOT_LABELLED)
    return make_record(name, _xyxy(full[:, :4]), points[..., :2], visible, blur_score=full[:, 19])


def read_bbx(path: Path, lines: list[str]) -> list[Record]:
    """Official wider_face_*_bbx_gt.txt: photo, number of faces, then x y w h and six flags a face.

    A photo without a face has one line of zeros nevertheless.
    """
    lines = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    records, at = [], 0
    while at < len(lines):
        number, text = lines[at]
        name = _photo_name(path, number, text)
        if at + 1 == len(lines):
            raise ValueError(f"{path}:{number}: expected the number of faces after {name!r}, the file ends. {EXPECTED}")
        number, text = lines[at + 1]
        if not text.isdecimal():
            raise ValueError(f"{path}:{number}: expected the number of faces of {name!r}. Received: {text[:60]!r}")
        count = int(text)
        at += 2
        rows = lines[at : at + count]
        if len(rows) < count:
            raise ValueError(f"{path}:{number}: {name!r} has {count} faces, but the file ends after {len(rows)}")
        faces = [_numbers(path, n, row.split(), (BBX_VALUES,), "x y w h " + " ".join(BBX_FLAGS)) for n, row in rows]
        at += count
        if count == 0 and at < len(lines) and set(lines[at][1].split()) == {"0"}:
            at += 1
        faces = np.asarray(faces, np.float64).reshape(-1, BBX_VALUES)
        order = [BOX_VALUES + BBX_FLAGS.index(flag) for flag in FLAGS]
        records.append(make_record(name, _xyxy(faces[:, :4]), flags=faces[:, order]))
    return records


def read_mat(path: Path) -> list[Record]:
    """Official wider_face_train.mat or wider_face_val.mat; photos are named there without `.jpg`."""
    from scipy.io import loadmat  # slow to import, and only needed here

    path = Path(path)
    fields = ["event_list", "file_list", "face_bbx_list"]
    with path.open("rb") as file:
        try:
            content = loadmat(file)
        except Exception as error:  # SciPy raises nearly anything for a damaged file, other things in each version
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: not a readable Matlab file ({reason}). {EXPECTED}") from None
    if missing := [field for field in fields if field not in content]:
        hint = "; the test set's labels were never released" if "file_list" in content else ""
        raise ValueError(f"{path}: has no field {missing[0]!r}{hint}. {EXPECTED}")
    try:
        records = _mat_records(content)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its fields have another shape ({str(error).splitlines()[0]}). {EXPECTED}") from None
    return _unique(path, records)


def _mat_records(content):
    records = []
    for event, (name,) in enumerate(content["event_list"]):
        photos = content["file_list"][event, 0]
        for photo in range(len(photos)):
            boxes = content["face_bbx_list"][event, 0][photo, 0]
            flags = [
                content[f"{flag}_label_list"][event, 0][photo, 0].ravel()
                if f"{flag}_label_list" in content
                else np.full(len(boxes), UNKNOWN)
                for flag in FLAGS
            ]
            where = f"{name[0]}/{photos[photo, 0][0]}.jpg"
            records.append(make_record(where, _xyxy(boxes), flags=np.stack(flags, axis=-1).astype(np.int64)))
    return records


def _xyxy(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=-1)


def _numbers(path, number, words, lengths, meaning):
    expected = f"{path}:{number}: expected {' or '.join(map(str, lengths))} numbers ({meaning})"
    if len(words) not in lengths:
        raise ValueError(f"{expected}. Received {len(words)}: {' '.join(words)[:60]!r}")
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{expected}. Received: {' '.join(words)[:60]!r}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{expected}, all finite. Received: {' '.join(words)[:60]!r}")
    return values


def _photo_name(path, number, text):
    name = text.lstrip("/")
    if not PurePosixPath(name).suffix or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{path}:{number}: expected a photo such as 0--Parade/a.jpg. Received: {text[:60]!r}")
    return name


def _unique(path, records):
    seen = set()
    for record in records:
        if record.name in seen:
            raise ValueError(f"{path}: lists {record.name!r} twice; its faces can't be told apart. Remove one")
        seen.add(record.name)
    return records
