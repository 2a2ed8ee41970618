"""The three forms in which WIDER FACE is annotated.

`label.txt` of RetinaFace, the official `wider_face_*_bbx_gt.txt`, and the official `wider_face_{train,val}.mat`, whose
Easy, Medium and Hard selections are files of their own.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Container
from pathlib import Path, PurePosixPath

import numpy as np

from retinaface_tf.annotations.annotations import FLAGS, UNKNOWN, Annotations, annotate_photo, join
from retinaface_tf.annotations.text import DRIVE, parse_numbers, read_lines, shorten
from retinaface_tf.common.files import read_bytes
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE, PathLike

SUBSETS = ("easy", "medium", "hard")
VAL = "wider_face_val.mat"
DATA_VARIABLE = "RETINAFACE_TF_DATA"
BOX_VALUES = 4  # x y w h
LABEL_VALUES = (4, 19, 20)  # box; box and five triples; the same and a blur score
BBX_FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
BBX_VALUES = BOX_VALUES + len(BBX_FLAGS)  # of a line with a face
MATRIX, COMPRESSED = 14, 15  # kinds of elements of a Matlab file
KINDS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, MATRIX, COMPRESSED, 16, 17, 18)
CLASSES = (1, 4, *range(6, 16))  # of matrices: cells, text and numbers
MAX_MAT, MAX_DEPTH = 200_000_000, 10  # bytes, and levels of cells; WIDER FACE's have 6 million and 3
EXPECTED = "Expected RetinaFace's label.txt, an official wider_face_*_bbx_gt.txt or a wider_face_*.mat"


def read_widerface(path: PathLike, images: Path | None = None, classes: Container[str] = ()) -> Annotations:
    """Read one of the three forms, recognized by its content; `images` and `classes` are not needed.

    `path` may also be the folder of the official `eval_tools/ground_truth`. With the selections beside a .mat file, the
    `Annotations` have the subsets `easy`, `medium` and `hard`.

    Raises:
        OSError: The file can't be read.
        ValueError: It is none of the three, or a line of it is wrong; the message names the line.
    """
    path = Path(path)
    if path.is_dir():
        return _read_mat(path / VAL, required=True)
    if path.suffix.lower() == ".mat":
        return _read_mat(path)
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise ValueError(f"{error}. {EXPECTED}") from None
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"{path}: an empty file. {EXPECTED}")
    return (_read_label if first.lstrip().startswith("#") else _read_bbx)(path, lines)


def find_wider_ground_truth(directory: PathLike | None = None) -> Path:
    """The ground-truth folder: the given one, or `$RETINAFACE_TF_DATA/wider_ground_truth`.

    Raises:
        FileNotFoundError: There is none, or it has no `wider_face_val.mat`.
    """
    if directory is None and (data := os.environ.get(DATA_VARIABLE)):
        directory = Path(data) / "wider_ground_truth"
    if directory is None:
        raise FileNotFoundError(f"no WIDER FACE ground truth: give --ground-truth DIR, or set {DATA_VARIABLE}")
    directory = Path(directory)
    if not (directory / VAL).is_file():
        raise FileNotFoundError(f"{directory} has no {VAL}: expected the official eval_tools/ground_truth")
    return directory


def read_wider_ground_truth(directory: PathLike | None = None) -> Annotations:
    """The official validation set with its three subsets; `directory` as in `find_wider_ground_truth`."""
    return read_widerface(find_wider_ground_truth(directory))


def _read_label(path, lines):
    """RetinaFace's label.txt: `# photo`, then a line a face: x y w h, and in train five (x y occluded) and blur.

    The third number of a landmark is 0 where it is visible and 1 where it is not; all three are -1 where it is not
    labeled. (So read by the authors' release: insightface, `retinaface.py`.)
    """
    photos, faces = {}, []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if line.lstrip().startswith("#"):
            faces = _new_photo(path, number, line.lstrip()[1:].strip(), photos)
            continue
        faces.append(_parse_line(path, number, words, LABEL_VALUES, "x y w h, five (x y occluded), blur"))
    return join(_annotate_label(name, faces) for name, faces in photos.items())


def _annotate_label(name, faces):
    full = np.full((len(faces), 20), -1.0)
    for row, values in zip(full, faces, strict=True):
        row[: len(values)] = values
    points = full[:, 4:19].reshape(-1, 5, 3)
    labeled = (points[..., 2] >= 0) & ~(points[..., :2] == -1).all(-1)
    visible = np.where(labeled, np.where(points[..., 2] == 0, VISIBLE, OCCLUDED), NOT_LABELED)
    return annotate_photo(name, _to_xyxy(full[:, :4]), points[..., :2], visible, blur_score=full[:, 19])


def _read_bbx(path, lines):
    """Official wider_face_*_bbx_gt.txt: photo, number of faces, then x y w h and six flags a face.

    A photo without a face has one line of zeros nevertheless.
    """
    lines = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    photos, at = {}, 0
    while at < len(lines):
        number, text = lines[at]
        faces = _new_photo(path, number, text, photos)
        name = next(reversed(photos))
        if at + 1 == len(lines):
            raise ValueError(f"{path}:{number}: expected the number of faces after {name!r}, the file ends. {EXPECTED}")
        number, text = lines[at + 1]
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise ValueError(f"{path}:{number}: expected the number of faces of {name!r}. Received: {text[:60]!r}")
        count = int(text)
        at += 2
        rows = lines[at : at + count]
        if len(rows) < count:
            raise ValueError(f"{path}:{number}: {name!r} has {count} faces, but the file ends after {len(rows)}")
        meaning = "x y w h " + " ".join(BBX_FLAGS)
        faces += [_parse_line(path, n, row.split(), (BBX_VALUES,), meaning) for n, row in rows]
        at += count
        if count == 0 and at < len(lines) and set(lines[at][1].split()) == {"0"}:
            at += 1
    order = [BOX_VALUES + BBX_FLAGS.index(flag) for flag in FLAGS]
    parts = []
    for name, faces in photos.items():
        table = np.asarray(faces, np.float64).reshape(-1, BBX_VALUES)
        parts.append(annotate_photo(name, _to_xyxy(table[:, :4]), flags=table[:, order]))
    return join(parts)


def _read_mat(path, required=False):
    """Official wider_face_train.mat or wider_face_val.mat; photos are named there without `.jpg`."""
    content = _load_mat(path, ["event_list", "file_list", "face_bbx_list"])
    try:
        annotations = join(_annotate_mat(content))
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its fields have another shape ({str(error).splitlines()[0]}). {EXPECTED}") from None
    if len(set(annotations.files)) < len(annotations.files):
        raise ValueError(f"{path}: lists a photo twice")
    chosen = {name: path.with_name(f"wider_{name}_val.mat") for name in SUBSETS}
    if required or (path.name == VAL and all(each.is_file() for each in chosen.values())):
        counts = np.diff(annotations.offsets())
        subsets = {name: _kept(each, counts) for name, each in chosen.items()}
        annotations = annotations.replace(subsets=subsets)
    return annotations


def _annotate_mat(content):
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
            yield annotate_photo(where, _to_xyxy(boxes), flags=np.stack(flags, axis=-1).astype(np.int64))


def _kept(path, counts):
    """Bool `[F]`: the faces of one selection. The file counts faces from 1, image by image."""
    content = _load_mat(path, ["gt_list"])
    chosen = [indices.ravel() for event in content["gt_list"][:, 0] for indices in event[:, 0]]
    if len(chosen) != len(counts):
        raise ValueError(f"{path} lists {len(chosen)} images; {VAL} beside it lists {len(counts)}")
    kept = np.zeros(counts.sum(), bool)
    for start, indices in zip(np.cumsum(counts) - counts, chosen, strict=True):
        kept[start + indices.astype(np.int64) - 1] = True
    return kept


def _load_mat(path, fields):
    from scipy.io import loadmat  # slow to import, and only needed here

    if path.parent.is_dir() and not path.exists():
        raise FileNotFoundError(f"{path} is missing: expected the official eval_tools/ground_truth")
    content = read_bytes(path, max_bytes=MAX_MAT)
    try:
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]  # version 5's header ends so
    except KeyError:
        raise ValueError(f"{path}: not a Matlab file of version 5. {EXPECTED}") from None
    with io.BytesIO(content) as file:
        try:
            _require_room(memoryview(content)[128:], order)
            content = loadmat(file)
        except Exception as error:  # SciPy raises nearly anything for a damaged file, other things in each version
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: not a readable Matlab file ({reason}). {EXPECTED}") from None
    if missing := [field for field in fields if field not in content]:
        hint = "; the test set's labels were never released" if "file_list" in content else ""
        raise ValueError(f"{path}: has no field {missing[0]!r}{hint}. {EXPECTED}")
    return content


def _require_room(elements, order, depth=0):
    """Refuse what no such file holds before SciPy reads it: unknown kinds crash it, and shapes take all memory."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    at = 0
    while at + 8 <= len(elements):
        kind, size = struct.unpack_from(f"{order}II", elements, at)
        if kind & 0xFFFF not in KINDS:
            raise ValueError(f"an element of kind {kind & 0xFFFF}")
        if kind >> 16:  # the short form: four bytes of content beside the kind
            at += 8
            continue
        body = elements[at + 8 : at + 8 + size]
        at += 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(body, MAX_MAT)
            _require_room(memoryview(unpacked), order, depth + 1)
        elif kind == MATRIX and size:
            *flags, kind_of_shape, length = struct.unpack_from(f"{order}IIIIII", body)
            if flags[:2] != [6, 8] or flags[2] & 0xFF not in CLASSES or kind_of_shape != 5:
                raise ValueError(f"a matrix of class {flags[2] & 0xFF}")
            shape = struct.unpack_from(f"{order}{min(length, 64) // 4}i", body, 24)
            if min(shape, default=0) < 0 or length > 64 or math.prod(shape) > size:
                raise ValueError(f"a matrix of shape {shape} in {size} bytes")
            _require_room(body[24 + length + -length % 8 :], order, depth + 1)


def _to_xyxy(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=-1)


def _parse_line(path, number, words, lengths, meaning):
    expected = f"{path}:{number}: expected {' or '.join(map(str, lengths))} numbers ({meaning})"
    if len(words) not in lengths:
        raise ValueError(f"{expected}. Received {len(words)}: {' '.join(words)[:60]!r}")
    return parse_numbers(words, len(words), f"{path}:{number}: {meaning}")


def _new_photo(path, number, text, photos):
    """The list for the faces of a photo that a line names."""
    name = text.lstrip("/")
    parts = PurePosixPath(name).parts
    if not PurePosixPath(name).suffix or ".." in parts or DRIVE.match(name):
        raise ValueError(f"{path}:{number}: expected a photo such as 0--Parade/a.jpg. Received: {shorten(text, 60)}")
    if name in photos:
        raise ValueError(f"{path}:{number}: lists {name!r} twice; remove one of the two")
    photos[name] = []
    return photos[name]
