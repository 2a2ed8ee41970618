"""Your own photos: COCO JSON, Pascal VOC XML, YOLO text or CSV -> records. No TensorFlow.

Landmarks, where a source has them, are five, in the order left eye, right eye, nose, left mouth corner, right mouth
corner as seen in the image.
"""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Collection, Container
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from retinaface_tf.annotations.record import NOT_LABELLED, OCCLUDED, VISIBLE, make_record
from retinaface_tf.common.files import PHOTO_SUFFIXES
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.annotations.record import Record


KINDS = ("coco", "voc", "yolo", "csv")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
FILE_COLUMNS = ("file", "filename", "image", "path")
BOX_COLUMNS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "w", "h"))
CLASS_COLUMNS = ("label", "class", "category")
COCO_STATES = np.array([NOT_LABELLED, OCCLUDED, VISIBLE])  # of keypoint flags 0, 1, 2


def read_custom(
    annotations: PathLike, images: PathLike, kind: str = "auto", classes: Collection[str] | None = None
) -> list[Record]:
    """Read labels of any of `KINDS`.

    Args:
        annotations: a .json (COCO) or .csv file, or a folder of .xml (Pascal VOC) or .txt files (YOLO).
        images: folder of the photos; YOLO's labels do not name them.
        kind: one of `KINDS`, or "auto" to tell by the suffix.
        classes: names (YOLO: numbers) of the classes that are faces; None for all.

    Returns:
        List of `Record`, by name.

    Raises:
        OSError: something can't be read.
        ValueError: it is not what it should be; the message says which file and where in it.
    """
    annotations, images = Path(annotations), Path(images)
    if kind == "auto":
        kind = guess_kind(annotations)
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {['auto', *KINDS]}. Received: kind={kind!r}")
    wanted = None if not classes else {str(name) for name in classes}
    reader = {"coco": read_coco, "voc": read_voc, "yolo": read_yolo, "csv": read_csv}[kind]
    seen = set()
    try:
        records = sorted(reader(annotations, images, _Classes(wanted, seen)), key=lambda record: record.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{annotations}: expected UTF-8 text ({error.reason} at byte {error.start})") from None
    except (AttributeError, TypeError, KeyError, csv.Error) as error:  # another structure than we index into
        raise ValueError(f"{annotations}: not {kind} labels as docs/data.md describes ({_reason(error)})") from None
    if wanted and not wanted & seen:
        raise ValueError(f"{annotations}: no face has class {sorted(wanted)}; the classes there are {sorted(seen)}")
    for record, following in pairwise(records):
        if record.name == following.name:
            raise ValueError(f"{annotations}: labels {record.name!r} twice. Remove one")
    return records


def guess_kind(annotations: Path) -> str:
    """Which of `KINDS` a path holds."""
    if annotations.is_file() and (kind := {".json": "coco", ".csv": "csv"}.get(annotations.suffix.lower())):
        return kind
    if annotations.is_dir():
        for suffix, kind in ((".xml", "voc"), (".txt", "yolo")):
            if next(annotations.rglob(f"*{suffix}"), None):
                return kind
    if not annotations.exists():
        raise FileNotFoundError(f"{annotations}: no such file or folder")
    raise ValueError(f"{annotations}: expected a .json (COCO) or .csv file, or a folder of .xml (VOC) or .txt (YOLO)")


class _Classes:
    """Whether a class is wanted, and which ones came."""

    def __init__(self, wanted, seen):
        self.wanted, self.seen = wanted, seen

    def __contains__(self, name):
        self.seen.add(str(name))
        return self.wanted is None or str(name) in self.wanted


def read_coco(path: Path, images: Path, classes: Container[str]) -> list[Record]:
    """COCO JSON: `bbox` is x y w h; `keypoints`, if there are five, are x y v. Crowd regions are no faces."""
    try:
        content = json.loads(path.read_text("utf-8"))
        names = {one["id"]: one["name"] for one in content.get("categories", [])}
        photos = {one["id"]: (one, []) for one in content["images"]}
        annotations = content["annotations"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected COCO JSON with images and annotations ({_reason(error)})") from None
    for number, one in enumerate(annotations):
        where = f"{path}: annotation {one.get('id', number)}"
        if one.get("image_id") not in photos:
            raise ValueError(f"{where}: its image_id {one.get('image_id')!r} is not among the images")
        if names.get(one.get("category_id"), one.get("category_id")) not in classes or one.get("iscrowd"):
            continue
        x, y, w, h = _floats(one.get("bbox"), 4, f"{where}: bbox of x y w h")
        points = np.zeros((5, 3))
        if len(one.get("keypoints") or []) == 15:
            points = np.reshape(_floats(one["keypoints"], 15, f"{where}: five keypoints of x y v"), (5, 3))
        elif one.get("keypoints"):
            raise ValueError(
                f"{where}: expected five keypoints ({', '.join(POINTS)}), it has {len(one['keypoints'])}/3"
            )
        photos[one["image_id"]][1].append(((x, y, x + w, y + h), points))
    records = []
    for photo, faces in photos.values():
        size = (photo["width"], photo["height"]) if photo.get("width") and photo.get("height") else None
        name = _photo_name(photo.get("file_name"), f"{path}: image {photo.get('id')}")
        records.append(_with_states(name, faces, size=size))
    return records


def read_voc(folder: Path, images: Path, classes: Container[str]) -> list[Record]:
    """A folder of Pascal VOC XML: xmin ymin xmax ymax as they are, without VOC's offset of 1, as annotators write."""
    records = []
    for path in sorted(folder.rglob("*.xml")):
        try:
            root = ET.parse(path).getroot()
        except ET.ParseError as error:
            raise ValueError(f"{path}: not XML ({error})") from None
        if root.tag != "annotation":
            raise ValueError(f"{path}: expected a Pascal VOC <annotation>, it is <{root.tag}>")
        below = path.parent.relative_to(folder)
        name = _photo_name((below / (root.findtext("filename") or f"{path.stem}.jpg").strip()).as_posix(), path)
        boxes = []
        for number, face in enumerate(root.iter("object"), 1):
            if (face.findtext("name") or "").strip() not in classes:
                continue
            words = [face.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            boxes.append(_floats(words, 4, f"{path}: object {number}: bndbox of xmin ymin xmax ymax"))
        size = [root.findtext(f"size/{side}") for side in ("width", "height")]
        size = tuple(int(v) for v in _floats(size, 2, f"{path}: size")) if all(size) else None
        # Some annotators write 0 where they don't know.
        records.append(make_record(name, boxes, size=size if size and all(size) else None))
    return records


def read_yolo(folder: Path, images: Path, classes: Container[str]) -> list[Record]:
    """A folder of YOLO text, one beside each photo by name: class, centre x y, w h in [0, 1], and maybe five x y (v).

    A photo without text has no face, as YOLO has it. `classes` are numbers.
    """
    photos = {}
    for path in sorted(images.rglob("*")):
        if path.suffix.lower() in PHOTO_SUFFIXES:
            photos.setdefault(path.relative_to(images).with_suffix("").as_posix(), []).append(path)
    texts = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.txt"))}
    records = []
    for stem in sorted({*photos, *texts}):
        found = photos.get(stem, [])
        if len(found) > 1:
            raise ValueError(f"{images / stem}: {len(found)} photos have this name; YOLO text can't say which is meant")
        if not found and Path(stem).name in ("classes", "train", "val", "test", "README", "notes"):
            continue
        name = found[0].relative_to(images).as_posix() if found else f"{stem}.jpg"
        faces = _yolo_faces(texts[stem], classes) if stem in texts else []
        records.append(_with_states(name, faces, normalized=True))
    return records


def _yolo_faces(path, classes):
    faces = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0] not in classes:
            continue
        where = f"{path}:{number}: class, centre x y, w h, and maybe five x y or x y v"
        if len(words) not in (5, 15, 20):
            raise ValueError(f"{where}: expected 5, 15 or 20 numbers, it has {len(words)}")
        x, y, w, h, *rest = _floats(words[1:], len(words) - 1, where)
        points = np.zeros((5, 3))
        if len(rest) == 15:
            points = np.reshape(rest, (5, 3))
        elif rest:
            points[:, :2] = np.reshape(rest, (5, 2))
            points[:, 2] = 2 * (points[:, :2] > 0).any(-1)
        faces.append(((x - w / 2, y - h / 2, x + w / 2, y + h / 2), points))
    return faces


def read_csv(path: Path, images: Path, classes: Container[str]) -> list[Record]:
    """CSV with a header, one face a line: a file column, x1 y1 x2 y2 (or xmin …, or x y w h), and maybe landmarks.

    Landmark columns are `left_eye_x`, `left_eye_y` … for each of `POINTS`; empty where not labelled. A column
    `left_eye_visible` … may hold 0 for occluded. `label` is the class; `width` and `height` are the photo's. A line
    with an empty box is a photo without face.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        file_column = next((name for name in FILE_COLUMNS if name in columns), None)
        box_columns = next((names for names in BOX_COLUMNS if set(names) <= set(columns)), None)
        class_column = next((name for name in CLASS_COLUMNS if name in columns), None)
        if not file_column or not box_columns:
            raise ValueError(
                f"{path}: expected a header with file and x1, y1, x2, y2 (or xmin …, or x, y, w, h). "
                f"Received: {', '.join(columns)[:120]}"
            )
        photos = {}
        for row in rows:
            where = f"{path}:{rows.line_num}"
            sides = [row.get("width"), row.get("height")]
            size = tuple(int(v) for v in _floats(sides, 2, f"{where}: width, height")) if all(sides) else None
            _, faces = photos.setdefault(_photo_name(row[file_column], where), (size, []))
            words = [row[name] for name in box_columns]
            if not any(words) or (class_column and row[class_column] not in classes):
                continue
            box = _floats(words, 4, f"{where}: {' '.join(box_columns)}")
            if box_columns == ("x", "y", "w", "h"):
                box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
            points = np.zeros((5, 3))
            for point, column in zip(points, POINTS, strict=True):
                words = [row.get(f"{column}_x"), row.get(f"{column}_y")]
                if any(words):
                    hidden = row.get(f"{column}_visible") in ("0", "0.0", "false")
                    point[:] = (*_floats(words, 2, f"{where}: {column}_x, {column}_y"), 1 if hidden else 2)
            faces.append((box, points))
    return [_with_states(name, faces, size=size) for name, (size, faces) in photos.items()]


def _with_states(name, faces, **more):
    """A record of (box, `[5, 3]` x y and COCO's flag) pairs."""
    points = np.array([points for _, points in faces], np.float64).reshape(-1, 5, 3)
    states = COCO_STATES[np.clip(points[..., 2], 0, 2).astype(int)]
    return make_record(name, [box for box, _ in faces], points[..., :2], states, **more)


def _floats(words, count, what):
    try:
        values = [float(word) for word in words]
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected {count} numbers. Received: {str(words)[:80]}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{what}: expected {count} finite numbers. Received: {str(words)[:80]}")
    return values


def _photo_name(name, where):
    clean = (name or "").strip().replace("\\", "/").removeprefix("./")
    parts = PurePosixPath(clean).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"{where}: expected the name of a photo below the images folder. Received: {name!r}")
    return clean


def _reason(error):
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
