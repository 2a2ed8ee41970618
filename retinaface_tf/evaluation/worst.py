"""Which faces were missed, and what was taken for a face: the worst of each, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from retinaface_tf.common.types import PathLike
from retinaface_tf.data.contact_sheet import contact_sheet
from retinaface_tf.evaluation.runner import read_image
from retinaface_tf.evaluation.widerface import IOU_THRESHOLD, judge

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.widerface import Matching


CONTEXT = 1.0  # so many sides of the box are shown on each side of it
TILE = 200  # pixels


class Case(NamedTuple):
    """One miss or false alarm.

    Attributes:
        name: of the photo.
        box: float64 `[4]`, `xyxy` pixels.
        caption: a few words.
    """

    name: str
    box: np.ndarray
    caption: str


def worst_misses(
    annotations: Annotations, matching: Matching, keep: np.ndarray, number: int, *, score_threshold: float = 0.5
) -> list[Case]:
    """The largest faces of `keep` that no detection of at least `score_threshold` hit: list of `Case`."""
    best = np.zeros(len(annotations.boxes))
    hits = matching.iou >= IOU_THRESHOLD
    np.maximum.at(best, matching.face[hits], matching.scores[hits])
    heights = annotations.boxes[:, 3] - annotations.boxes[:, 1]
    missed = np.flatnonzero(keep & (best < score_threshold))
    return [
        Case(
            annotations.names[annotations.image[face]],
            annotations.boxes[face],
            f"{heights[face]:.0f} px, " + (f"score {best[face]:.2f}" if best[face] else "no box"),
        )
        for face in missed[np.argsort(-heights[missed], kind="stable")][:number]
    ]


def worst_alarms(
    annotations: Annotations, detections: Mapping[str, Any], matching: Matching, keep: np.ndarray, number: int
) -> list[Case]:
    """The surest detections that are no hit: list of `Case`; the caption says how much they overlap a face."""
    proposal, hit = judge(matching, keep)
    wrong = np.flatnonzero(proposal & ~hit)
    rank = np.arange(len(matching.image)) - np.searchsorted(matching.image, matching.image)  # within the photo
    cases = []
    for index in wrong[np.argsort(-matching.scores[wrong], kind="stable")][:number]:
        name = annotations.names[matching.image[index]]
        order = np.argsort(-np.asarray(detections[name].scores), kind="stable")
        overlap = matching.iou[index]
        what = "second box" if overlap >= IOU_THRESHOLD else f"IoU {overlap:.2f}" if overlap > 0 else "no label"
        box = np.asarray(detections[name].boxes, np.float64)[order[rank[index]]]
        cases.append(Case(name, box, f"{matching.scores[index]:.2f}, {what}"))
    return cases


def draw_cases(path: Path, cases: Sequence[Case], annotations: Annotations, photos: Mapping[str, PathLike]) -> None:
    """Each case in its surroundings on one picture: labels green, the case orange.

    Args:
        path: of the picture; its folder is made.
        cases: list of `Case`.
        annotations: `Annotations`.
        photos: dict name -> path; cases of other photos are left out.
    """
    offsets = annotations.offsets()
    number = {name: index for index, name in enumerate(annotations.names)}
    tiles = []
    for case in cases:
        if case.name not in photos:
            continue
        side = int(np.ceil((1 + 2 * CONTEXT) * (case.box[2:] - case.box[:2]).max()))
        left, top = np.floor((case.box[:2] + case.box[2:]) / 2 - side / 2).astype(int)
        photo = Image.fromarray(read_image(photos[case.name])).crop((left, top, left + side, top + side))
        scale = TILE / side
        index = number[case.name]
        labels = annotations.boxes[offsets[index] : offsets[index + 1]]
        boxes = (np.concatenate([labels, case.box[None]]) - [left, top, left, top]) * scale
        tiles.append(
            {
                "image": np.asarray(photo.resize((TILE, TILE), Image.Resampling.BILINEAR)),
                "boxes": boxes,
                "landmarks": np.zeros((len(boxes), 5, 2)),
                "visible": np.full((len(boxes), 5), -1),
                "invalid": np.arange(len(boxes)) == len(labels),
                "caption": f"{case.name.rsplit('/')[-1][-14:]}  {case.caption}",
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, columns=5, tile=TILE).save(path)
