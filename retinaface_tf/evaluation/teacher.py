"""Labels by a teacher: detect at several sizes, and measure how well the results agree. No TensorFlow.

A detector finds more in an enlarged photo than in the photo itself. What it finds there is a label for the same photo
at its own size.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.complete import Completed, add_boxes, add_landmarks
from retinaface_tf.annotations.csv import open_table, refuse_doubles, require_cells
from retinaface_tf.annotations.text import parse_file, parse_numbers, shorten
from retinaface_tf.common.files import open_file
from retinaface_tf.common.json_files import ListOf, Number, Optional, parse_json
from retinaface_tf.common.run_folder import refuse_other_settings
from retinaface_tf.common.types import NOT_LABELED, VISIBLE, PathLike
from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.evaluation.protocols import concatenate, mirror, rescale, resize
from retinaface_tf.geometry.overlap import pairwise_iou

SMALLEST, LARGEST = 12.0, 320.0  # side of a face, in pixels of a view, that the view is asked about
TILE, TILE_OVERLAP = 1536, 320  # a larger view is shown in parts; a face up to the overlap is whole in one of them
MAX_SIDE = 2150  # no photo is enlarged beyond this
SAME_FACE = 0.4  # IoU of box voting
# Scores of a face: seen at all; believed where people confirm it; sure enough for its landmarks.
DOUBT, CONFIRMED, SURE = 0.05, 0.15, 0.7
LOOK = {  # a line of what a teacher sees
    "file": str,
    "boxes": ListOf(ListOf(Number(), length=4)),
    "scores": ListOf(Number(0, 1)),
    "landmarks": ListOf(ListOf(ListOf(Number(), length=2), length=5)),
    "spread": ListOf(Optional(Number(low=0))),
    "settings": Optional(dict),
}


LINE_START = b'{"file": "'  # of each line that `append_look` writes


class Seen(NamedTuple):
    """The faces found at any size of a photo, best first.

    Attributes:
        boxes: float64 `[N, 4]`, `xyxy` pixels of the photo.
        scores: float64 `[N]`. Mean over the views that are asked about a face of this size; 0 where one misses it.
        landmarks: float64 `[N, 5, 2]`, pixels of the photo.
        spread: float64 `[N]`. Mean distance of the views' landmarks from their mean, in parts of the box's side; NaN
            where a single view found the face.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    spread: np.ndarray


def look(
    detect: Callable[[np.ndarray], Any], image: np.ndarray, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Seen:
    """Detect in a photo at several sizes, and merge the results by box voting.

    Args:
        detect: function of a uint8 image `[h, w, 3]` that returns `boxes` `[M, 4]`, `scores` `[M]` and `landmarks`
            `[M, 5, 2]` in its pixels.
        scales: floats. Sizes of the photo; those that would make its long side longer than `MAX_SIDE` are left out.
        flip: bool. Show each size mirrored too.
    """
    height, width = image.shape[:2]
    long = max(height, width)
    kept = [scale for scale in sorted(scales) if scale * long <= MAX_SIDE] or [min(scales)]
    views = [(scale, flipped) for scale in kept for flipped in ([False, True] if flip else [False])]
    largest = {scale: LARGEST if index else np.inf for index, scale in enumerate(kept)}
    found = []
    for scale, flipped in views:
        view = image if scale == 1 else resize(image, None, max(1, round(scale * long)))
        view = np.ascontiguousarray(view[:, ::-1]) if flipped else view
        each = _detect_in_tiles(detect, view)
        each = mirror(each, view.shape[1]) if flipped else each
        side = _sides(each.boxes)
        asked = (side >= SMALLEST) & (side <= largest[scale])
        each = ImageDetections(each.boxes[asked], each.scores[asked], _landmarks(each)[asked])
        found.append(rescale(each, width / view.shape[1], height / view.shape[0]))
    return vote_by_view(found, [scale for scale, _ in views], [largest[scale] for scale, _ in views])


def vote_by_view(found: Sequence[ImageDetections], scales: Sequence[float], largest: Sequence[float]) -> Seen:
    """Merge the views of a photo, each with its scale and the largest side of a face (view pixels) to look for."""
    everything = concatenate(found)
    view = np.repeat(np.arange(len(found)), [len(each.scores) for each in found])
    order = np.argsort(-everything.scores, kind="stable")
    boxes, scores, points = everything.boxes[order], everything.scores[order], _landmarks(everything)[order]
    view, scales, largest = view[order], np.asarray(scales, np.float64), np.asarray(largest, np.float64)
    rows = []
    left = np.arange(len(scores))
    while len(left):
        same = pairwise_iou(boxes[left[:1]], boxes[left])[0] >= SAME_FACE
        same[0] = True  # a box without area has no overlap even with itself
        group, left = left[same], left[~same]
        _, first = np.unique(view[group], return_index=True)  # the best of each view
        best = group[first]
        weights = scores[best] / scores[best].sum()
        box, landmarks = weights @ boxes[best], np.tensordot(weights, points[best], axes=1)
        in_view = _sides(box[None])[0] * scales
        asked = (in_view >= SMALLEST) & (in_view <= largest)
        score = scores[best].sum() / max(asked.sum(), len(best))
        distance = np.linalg.norm(points[best] - landmarks, axis=-1).mean(axis=-1) @ weights
        spread = distance / max(_sides(box[None])[0], 1e-9) if len(best) > 1 else np.nan
        rows.append((box, score, landmarks, spread))
    rows.sort(key=lambda row: -row[1])
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    shapes = (-1, 4), (-1,), (-1, 5, 2), (-1,)
    return Seen(*(np.array(each, np.float64).reshape(shape) for each, shape in zip(columns, shapes, strict=True)))


def _detect_in_tiles(detect, view):
    height, width = view.shape[:2]
    parts = []
    for top in _starts(height):
        for left in _starts(width):
            tile = view[top : top + TILE, left : left + TILE]
            found = detect(np.ascontiguousarray(tile))
            boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
            bottom, right = top + tile.shape[0], left + tile.shape[1]
            # A face at an edge that is not the view's is cut; a neighboring tile has it whole.
            cut = ((boxes[:, 0] < 2) & (left > 0)) | ((boxes[:, 1] < 2) & (top > 0))
            cut |= ((boxes[:, 2] > tile.shape[1] - 2) & (right < width)) | (
                (boxes[:, 3] > tile.shape[0] - 2) & (bottom < height)
            )
            points = np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)[~cut] + [left, top]
            scores = np.asarray(found.scores, np.float64)[~cut]
            parts.append(ImageDetections(boxes[~cut] + [left, top, left, top], scores, points))
    return concatenate(parts)


def _landmarks(found):
    """Landmarks of detections that are known to have them: float64 `[N, 5, 2]`."""
    return np.asarray(found.landmarks, np.float64).reshape(-1, 5, 2)


def _starts(length):
    step = TILE - TILE_OVERLAP
    return [0] if length <= TILE else [*range(0, length - TILE, step), length - TILE]


def _sides(boxes):
    return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def accept(
    file: str,
    seen: Seen,
    points: np.ndarray | None = None,
    *,
    min_score: float = 0.5,
    max_spread: float = 0.06,
) -> Annotations:
    """Faces and ignore regions for a photo without labeled boxes. Everything else is background.

    Args:
        file: The photo, as `Annotations.files` has it.
        seen: `Seen`.
        points: Float `[P, 2]`, pixels: one on each head of the photo, marked by people; or `None`. With them a face
            needs a point of its own and a score of `CONFIRMED`, a point without a face becomes an ignore region, and
            what lies far from all points is background.
        min_score: Score from which a face without a point is accepted.
        max_spread: Landmarks of faces whose views differ more are left unlabeled.

    Returns:
        `Annotations` of one photo: faces, with the teacher's scores or 1 where a point confirms them; then regions,
        with `ignore`: what has a score of at least `DOUBT` but is not accepted, and points without a face.
    """
    accepted, free = np.zeros(len(seen.scores), bool), np.zeros((0, 2))
    if points is None:
        accepted = seen.scores >= min_score
    else:
        free = np.asarray(points, np.float64).reshape(-1, 2)
        for face in np.flatnonzero(seen.scores >= CONFIRMED):
            low, high = seen.boxes[face, :2], seen.boxes[face, 2:]
            reach = (high - low) * [0.25, 0.35]  # a point marks the head, whose center is above that of the face
            inside = ((free >= low - reach) & (free <= high + reach * [1, 0])).all(axis=1)
            if inside.any():
                distance = np.linalg.norm(free - (low + high) / 2, axis=1)
                free = np.delete(free, np.where(inside, distance, np.inf).argmin(), axis=0)
                accepted[face] = True
    accepted &= ~_in_larger_faces(seen.boxes, accepted)
    doubtful = ~accepted & (seen.scores >= DOUBT)
    if points is not None:
        doubtful &= _near(seen.boxes, points) | (seen.scores >= min_score)
    boxes = seen.boxes[accepted]
    regions = np.concatenate([seen.boxes[doubtful], around_points(free, boxes, points)])
    landmarks = np.where((seen.spread <= max_spread)[:, None, None], seen.landmarks, np.nan)[accepted]
    scores = seen.scores[accepted] if points is None else np.ones(len(boxes))
    return _annotate(file, boxes, landmarks, scores, regions)


def teach(
    annotations: Annotations,
    see: Callable[[str], Seen],
    *,
    points: Mapping[str, np.ndarray] | None = None,
    classes: Collection[str] | None = None,
    min_score: float = 0.5,
    only_boxes: bool = False,
) -> Completed:
    """Add the detections of a teacher to labels.

    Args:
        annotations: `Annotations` in pixels; photos without faces are labeled by the teacher alone.
        see: Function of a photo's file that returns `Seen`. A ValueError says that the photo can't be read.
        points: Dict file -> points, see `accept`.
        classes: Classes whose landmarks can be seen; `None` for all.
        min_score: See `accept`.
    """
    photos, unreadable, added = [], [], 0
    for photo in annotations:
        file = photo.files[0]
        try:
            seen = see(file)
        except ValueError as error:  # one photo of thousands: the others are labeled all the same
            unreadable.append(str(error))
            continue
        if photo.num_faces:
            may_have = np.array([not classes or label in classes for label in photo.classes], bool)
            photos.append(
                complete_with_teacher(photo, seen, may_have=may_have, only_boxes=only_boxes, min_score=min_score)
            )
        else:
            photos.append(accept(file, seen, points.get(file) if points else None, min_score=min_score))
        added += int((photos[-1].scores < 1).sum()) if photo.num_faces else int((~photos[-1].ignore).sum())
    return Completed(join(photos), 0, unreadable, added)


def complete_with_teacher(
    photo: Annotations,
    seen: Seen,
    *,
    may_have: np.ndarray | None = None,
    only_boxes: bool = False,
    min_score: float = 0.5,
) -> Annotations:
    """Merge existing labels with further detections of the teacher.

    Args:
        photo: `Annotations` of one photo. A face without a box gets that of the detection whose eyes agree; if there is
            none it becomes an ignore region.
        may_have: Bool `[F]`, the faces with boxes that may get landmarks of the teacher; `None` for all.

    Returns:
        `Annotations` of one photo: the faces of people first, then those of the teacher, then ignore regions.
    """
    people = photo.select(~photo.ignore)
    may_have = np.ones(people.num_faces, bool) if may_have is None else may_have[~photo.ignore]
    labeled, boxes = people.landmarks_or_nan(), people.boxes.copy()
    without = np.isnan(boxes).any(axis=1)
    landmarks = labeled.copy()
    boxes[without], found = add_boxes(labeled[without], seen, min_score=CONFIRMED)
    landmarks[without] = labeled[without] if only_boxes else found
    found = add_landmarks(boxes[~without], seen, may_have[~without], min_score=SURE)
    landmarks[~without] = np.where(np.isnan(labeled[~without]), found, labeled[~without])
    lost = np.isnan(boxes).any(axis=1)
    unsure = np.concatenate([photo.boxes[photo.ignore], _around_eyes(labeled[lost])])
    known = np.concatenate([boxes[~lost], unsure])
    new = np.ones(len(seen.boxes), bool)
    if len(known) and len(new):
        new = pairwise_iou(seen.boxes, known).max(axis=1) <= 0.3
    more = accept(photo.files[0], Seen(*(values[new] for values in seen)), min_score=min_score)
    return _annotate(
        photo.files[0],
        np.concatenate([boxes[~lost], more.boxes[~more.ignore]]),
        np.concatenate([landmarks[~lost], more.landmarks_or_nan()[~more.ignore]]),
        np.concatenate([people.scores[~lost], more.scores[~more.ignore]]),
        np.concatenate([unsure, more.boxes[more.ignore]]),
    )


def _annotate(file, boxes, landmarks, scores, regions):
    count = len(regions)
    states = np.where(np.isnan(landmarks).any(axis=-1), NOT_LABELED, VISIBLE)
    return annotate_photo(
        file,
        np.concatenate([boxes, regions]),
        np.concatenate([np.nan_to_num(landmarks), np.zeros((count, 5, 2))]),
        np.concatenate([states, np.full((count, 5), NOT_LABELED)]),
        scores=np.concatenate([scores, np.ones(count)]),
        ignore=np.arange(len(boxes) + count) >= len(boxes),
    )


def _around_eyes(landmarks):
    """Boxes that hold the faces of eyes, with room: float64 `[K, 4]`; of faces without both eyes there is none."""
    centers = landmarks[:, :2].mean(axis=1).reshape(-1, 2)
    between = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=-1)[:, None]
    boxes = np.concatenate([centers - 1.6 * between, centers + 2.2 * between], axis=1)
    return boxes[np.isfinite(boxes).all(axis=1)]


def around_points(free: np.ndarray, boxes: np.ndarray, points: np.ndarray | None) -> np.ndarray:
    """Squares around points without a face `[K, 2]`, as large as heads nearby: float64 `[K, 4]`.

    The size comes from the nearest of the faces `boxes`; where there are fewer than three, from the distances of all
    `points` of the photo.
    """
    if len(free) == 0 or points is None:
        return np.zeros((0, 4))
    if len(boxes) >= 3:
        centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, 1.4 * _sides(boxes)
        distance = np.linalg.norm(free[:, None] - centers[None], axis=-1)
        size = np.median(sides[np.argsort(distance, axis=1)[:, :3]], axis=1)
    else:
        distance = np.sort(np.linalg.norm(free[:, None] - np.asarray(points)[None], axis=-1), axis=1)
        size = distance[:, 1:4].mean(axis=1) if distance.shape[1] > 1 else np.full(len(free), 32.0)
    half = np.clip(size, 8, 96)[:, None] / 2
    return np.concatenate([free - half, free + half], axis=1)


def _near(boxes, points):
    """Bool `[N]`: whether a point lies in the box, or less than half of its side beside it."""
    reach = (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = boxes[:, None, :2] - reach[:, None], boxes[:, None, 2:] + reach[:, None]
    points = np.asarray(points, np.float64).reshape(1, -1, 2)
    return ((points >= low) & (points <= high)).all(axis=-1).any(axis=1)


def _in_larger_faces(boxes, accepted):
    """Bool `[N]`: detections that lie, by four fifths, in an accepted face at least twice as wide: parts of it."""
    large = boxes[accepted]
    if len(large) == 0:
        return np.zeros(len(boxes), bool)
    low = np.maximum(boxes[:, None, :2], large[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], large[None, :, 2:])
    inside = np.maximum(high - low, 0).prod(axis=-1) >= 0.8 * (_sides(boxes) ** 2)[:, None]
    return (inside & (_sides(large)[None] >= 2 * _sides(boxes)[:, None])).any(axis=1)


def read_points(path: PathLike) -> dict[str, np.ndarray]:
    """Read a CSV of points on heads, with the columns `file`, `x`, `y`: dict file -> float64 `[P, 2]`, pixels."""
    points: dict[str, list[list[float]]] = {}
    try:
        header, rows = open_table(path)
        header = [name.lower() for name in header]
        if not {"file", "x", "y"} <= set(header):
            raise ValueError(f"{path}: expected a header with file, x, y. Received: {shorten(', '.join(header), 120)}")
        refuse_doubles(path, header, ("file", "x", "y"))
        for row in filter(any, rows):
            where = f"{path}:{rows.line_num}"
            require_cells(row, header, where)
            cells = dict(zip(header, row, strict=True))
            point = parse_numbers([cells["x"], cells["y"]], 2, f"{where}: x, y")
            points.setdefault(parse_file(cells["file"], where), []).append(point)
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error})") from None
    return {file: np.array(each, np.float64) for file, each in points.items()}


def read_looks(path: PathLike, settings: dict[str, Any] | None = None) -> dict[str, Seen]:
    """Read what `append_look` wrote: dict file -> `Seen`. A line that was cut off by an interruption is removed.

    Raises:
        OSError: It can't be read.
        ValueError: A line is none of `append_look`, or was written with other `settings`.
    """
    looks, length = {}, 0
    shapes = {"boxes": (-1, 4), "scores": (-1,), "landmarks": (-1, 5, 2), "spread": (-1,)}
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                if not line.startswith(LINE_START[: len(line)]):  # a file of something else loses nothing
                    raise ValueError(f"{path}:{number}: not what `label --detections` wrote")
                os.truncate(path, length)
                break
            length += len(line)
            one = parse_json(line, LOOK, f"{path}:{number}")
            values = {key: np.array(one[key], np.float64).reshape(shape) for key, shape in shapes.items()}
            if len({len(value) for value in values.values()}) > 1:
                raise ValueError(f"{path}:{number}: not what `label --detections` wrote: lists of unequal lengths")
            if settings and one.get("settings"):
                advice = "Choose another file: --detections FILE"
                refuse_other_settings(f"{path}:{number}", one["settings"], settings, advice=advice)
            looks[one["file"]] = Seen(**values)
    return looks


def append_look(path: PathLike, file: str, seen: Seen, settings: dict[str, Any] | None = None) -> None:
    """Add what the teacher sees in a photo to a file of JSON lines, with the settings that it depends on."""
    spread = [None if math.isnan(value) else round(value, 4) for value in seen.spread]
    values = {"boxes": seen.boxes.round(2).tolist(), "scores": seen.scores.round(4).tolist()}
    values |= {"landmarks": seen.landmarks.round(2).tolist(), "spread": spread}
    with Path(path).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"file": file, **values, "settings": settings}) + "\n")
