"""Pictures of the worst errors: the largest missed faces and the false alarms with the highest scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.runner import read_image
from retinaface_tf.evaluation.widerface import IOU_THRESHOLD, judge
from retinaface_tf.image.contact_sheet import contact_sheet
from retinaface_tf.image.drawing import save_picture

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.widerface import Matching


CONTEXT = 1.0  # how much is shown on each side of the box, in sides of it
TILE = 200  # pixels


class DetectionError(NamedTuple):
    """One miss or false alarm.

    Attributes:
        name: of the photo.
        box: float64 `[4]`, `xyxy` pixels.
        caption: a few words.
    """

    name: str
    box: np.ndarray
    caption: str


def find_misses(
    annotations: Annotations, matching: Matching, keep: np.ndarray, number: int, *, score_threshold: float = 0.5
) -> list[DetectionError]:
    """The largest faces of `keep` that no detection of at least `score_threshold` hit: list of `DetectionError`."""
    best = np.zeros(len(annotations.boxes))
    hits = matching.iou >= IOU_THRESHOLD
    np.maximum.at(best, matching.face[hits], matching.scores[hits])
    heights = annotations.boxes[:, 3] - annotations.boxes[:, 1]
    missed = np.flatnonzero(keep & (best < score_threshold))
    return [
        DetectionError(
            annotations.names[annotations.image[face]],
            annotations.boxes[face],
            f"{heights[face]:.0f} px, " + (f"score {best[face]:.2f}" if best[face] else "no box"),
        )
        for face in missed[np.argsort(-heights[missed], kind="stable")][:number]
    ]


def find_alarms(
    annotations: Annotations, detections: Mapping[str, Any], matching: Matching, keep: np.ndarray, number: int
) -> list[DetectionError]:
    """The false alarms with the highest scores: list of `DetectionError`; captions give the overlap with a face."""
    proposal, hit = judge(matching, keep)
    wrong = np.flatnonzero(proposal & ~hit)
    rank = np.arange(len(matching.image)) - np.searchsorted(matching.image, matching.image)  # within the photo
    errors = []
    for index in wrong[np.argsort(-matching.scores[wrong], kind="stable")][:number]:
        name = annotations.names[matching.image[index]]
        order = np.argsort(-np.asarray(detections[name].scores), kind="stable")
        overlap = matching.iou[index]
        what = "second box" if overlap >= IOU_THRESHOLD else f"IoU {overlap:.2f}" if overlap > 0 else "no label"
        box = np.asarray(detections[name].boxes, np.float64)[order[rank[index]]]
        errors.append(DetectionError(name, box, f"{matching.scores[index]:.2f}, {what}"))
    return errors


def draw_errors(
    path: Path, errors: Sequence[DetectionError], annotations: Annotations, photos: Mapping[str, PathLike]
) -> None:
    """Each error in its surroundings on one picture: labels green, the error orange.

    Args:
        path: of the picture; its folder is made.
        errors: list of `DetectionError`.
        annotations: `Annotations`.
        photos: dict name -> path; errors of other photos are left out.
    """
    offsets = annotations.offsets()
    number = {name: index for index, name in enumerate(annotations.names)}
    tiles = []
    for error in errors:
        if error.name not in photos:
            continue
        side = int(np.ceil((1 + 2 * CONTEXT) * (error.box[2:] - error.box[:2]).max()))
        left, top = np.floor((error.box[:2] + error.box[2:]) / 2 - side / 2).astype(int)
        photo = Image.fromarray(read_image(photos[error.name])).crop((left, top, left + side, top + side))
        scale = TILE / side
        index = number[error.name]
        labels = annotations.boxes[offsets[index] : offsets[index + 1]]
        boxes = (np.concatenate([labels, error.box[None]]) - [left, top, left, top]) * scale
        tiles.append(
            {
                "image": np.asarray(photo.resize((TILE, TILE), Image.Resampling.BILINEAR)),
                "boxes": boxes,
                "landmarks": np.zeros((len(boxes), 5, 2)),
                "visible": np.full((len(boxes), 5), -1),
                "invalid": np.arange(len(boxes)) == len(labels),
                "caption": f"{error.name.rsplit('/')[-1][-14:]}  {error.caption}",
            }
        )
    save_picture(contact_sheet(tiles, columns=5, tile=TILE), path)
