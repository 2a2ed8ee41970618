"""YOLO: a folder with a text file for each photo, by name."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.coco import STATES
from retinaface_tf.annotations.text import parse_numbers, read_lines, same_letters, shorten, visible_files
from retinaface_tf.common.files import PHOTO_SUFFIXES

OTHER_TEXTS = ("classes", "train", "val", "test", "README", "notes")  # beside labels, of no photo


def read_yolo(folder: Path, images: Path | None, classes: Container[str]) -> Annotations:
    """Read class, center x y, width height in [0, 1], and maybe five landmarks as x y or x y v. Normalized.

    A photo without text has no face, as YOLO has it. `classes` are numbers.
    """
    if images is None:
        raise ValueError(f"{folder}: YOLO's labels do not name their photos: the folder of photos is needed")
    photos: dict[str, list[Path]] = {}
    for path in visible_files(images, *PHOTO_SUFFIXES):
        photos.setdefault(path.relative_to(images).with_suffix("").as_posix(), []).append(path)
    texts = {path.relative_to(folder).with_suffix("").as_posix(): path for path in visible_files(folder, ".txt")}
    _match_letters(texts, photos)
    parts = []
    for stem in sorted({*photos, *texts}):
        found = photos.get(stem, [])
        if len(found) > 1:
            raise ValueError(f"{images / stem}: {len(found)} photos have this name; YOLO text can't say which is meant")
        if not found and Path(stem).name in OTHER_TEXTS:
            continue
        file = found[0].relative_to(images).as_posix() if found else f"{stem}.jpg"
        parts.append(_annotate(file, texts.get(stem), classes))
    return join(parts)


def _match_letters(texts, photos):
    """Give texts without a photo the name of the one photo that differs in letter case or Unicode form alone."""
    similar: dict[str, list[str]] = {}
    for stem in photos.keys() - texts.keys():
        similar.setdefault(same_letters(stem), []).append(stem)
    for stem in sorted(texts.keys() - photos.keys()):
        candidates = similar.get(same_letters(stem), [])
        if len(candidates) > 1 or any(each in texts for each in candidates):
            raise ValueError(
                f"{texts[stem]}: no photo has this name, and more than one photo or text has it in other letter case "
                f"or Unicode form, such as {shorten(candidates[0])}"
            )
        if candidates:
            texts[candidates[0]] = texts.pop(stem)


def _annotate(file, path, classes):
    boxes, landmarks, names = [], [], []
    for number, line in enumerate(read_lines(path) if path else [], 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}:{number}: class, center x y, w h, and maybe five x y or x y v"
        if not words[0].isascii() or not words[0].isdecimal():
            raise ValueError(f"{where}: expected the number of a class first. Received: {shorten(words[0])}")
        if words[0] not in classes:
            continue
        if len(words) not in (5, 15, 20):
            raise ValueError(f"{where}: expected 5, 15 or 20 numbers, it has {len(words)}")
        x, y, w, h, *rest = parse_numbers(words[1:], len(words) - 1, where)
        points = np.zeros((5, 3))
        if len(rest) == 15:
            points = np.reshape(rest, (5, 3))
        elif rest:
            points[:, :2] = np.reshape(rest, (5, 2))
            points[:, 2] = 2 * (points[:, :2] > 0).any(-1)
        boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        landmarks.append(points)
        names.append(words[0])
    points = np.array(landmarks, np.float64).reshape(-1, 5, 3)
    states = STATES[np.clip(points[..., 2], 0, 2).astype(int)]
    return annotate_photo(file, boxes, points[..., :2], states, classes=names, normalized=True)
