"""The differences between the faces of an artifact and those of the model in Python. NumPy only.

A face has many candidates, and NMS keeps the one with the highest score. Where the first two score the same up to
rounding, a rounded artifact may keep the second, whose box is a few pixels off though both were computed right:
`find_nms_ties` tells such faces from wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from retinaface_tf.geometry.overlap import pairwise_iou

if TYPE_CHECKING:
    from retinaface_tf.inference.detections import Detections


SAME_FACE = 0.5  # IoU from which two boxes are of one face
MEASURED = ("boxes", "scores", "landmarks")


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of an exported model, in pixels of its input image.

    Attributes:
        pixels: largest difference of a box's or a landmark's coordinate, or `None` where only the mean counts.
        score: largest difference of a score. A face whose score is so near to the lowest kept may come or go.
        landmark_shift: mean distance of the landmarks, as a part of the face's size, the root of its box's area.
        changed: part of the faces that may come or go though their scores are not near the lowest kept.
        ap: average precision that may be lost, where it is measured.
        tie: candidates of one face whose scores in Python differ by no more may win the suppression one for the other.
        swapped: part of the faces, and always one, of which that may be so.
    """

    pixels: float | None
    score: float
    landmark_shift: float
    changed: float
    ap: float
    tie: float = 0.0
    swapped: float = 0.0


TOLERANCES = {
    "fp32": Tolerance(pixels=0.05, score=1e-3, landmark_shift=1e-3, changed=0.0, ap=0.001, tie=1e-5, swapped=0.01),
    "fp16": Tolerance(pixels=0.5, score=5e-3, landmark_shift=0.01, changed=0.0, ap=0.002, tie=5e-3, swapped=0.01),
    "dynamic": Tolerance(pixels=None, score=0.1, landmark_shift=0.02, changed=0.05, ap=0.01),
    "int8": Tolerance(pixels=None, score=0.1, landmark_shift=0.02, changed=0.05, ap=0.01),
}


@dataclass
class Parity:
    """Sums over photos; `add` one after the other.

    Attributes:
        python, artifact, matched: int. Faces of each, and of both.
        boxes, scores, landmarks: float, largest differences of matched faces: pixels, 1, pixels. Those that are
            swapped count in `scores` alone.
        shifts: list of float, the mean landmark distance of each matched face as a part of its size.
        lost, gained: lists of dicts "photo", "score", "box", "near_threshold", of faces that only one has. Near is
            near the lowest score kept: the threshold or, in an image with as many faces as may be, that of the last.
        swapped: list of dicts as `find_nms_ties` makes them, with "photo".
    """

    tolerance: Tolerance
    score_threshold: float
    max_detections: int | None = None
    photos: int = 0
    python: int = 0
    artifact: int = 0
    matched: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    landmarks: float = 0.0
    shifts: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    gained: list = field(default_factory=list)
    swapped: list = field(default_factory=list)

    def add(
        self, photo: str, python: Detections, artifact: Detections, candidates: Callable[[], Any] | None = None
    ) -> None:
        """Compare two `Detections` of a photo.

        `candidates` is asked only where boxes or landmarks are too far off: it returns `Detections` of all candidates
        in Python, before the suppression. ValueError if the artifact's numbers are not finite.
        """
        if not all(np.isfinite(getattr(artifact, name)).all() for name in ("boxes", "scores", "landmarks")):
            raise ValueError(f"{photo}: the artifact returns numbers that are not finite. Export it again")
        rows, columns = match(python.boxes, artifact.boxes)
        self.photos += 1
        self.python += len(python)
        self.artifact += len(artifact)
        self.matched += len(rows)
        pairs = {name: (getattr(python, name)[rows], getattr(artifact, name)[columns]) for name in MEASURED}
        same = np.ones(len(rows), bool)
        if candidates is not None and self.tolerance.pixels is not None:
            for number, swap in find_nms_ties(pairs, candidates, self.tolerance):
                same[number] = False
                self.swapped.append({"photo": photo, **swap})
        for name, (ours, theirs) in pairs.items():
            kept = slice(None) if name == "scores" else same
            difference = np.abs(ours - theirs)[kept]
            setattr(self, name, max(getattr(self, name), float(difference.max(initial=0))))
        distances = np.linalg.norm(np.subtract(*pairs["landmarks"])[same], axis=-1).mean(axis=-1)
        sides = (python.boxes[rows, 2:] - python.boxes[rows, :2])[same]
        self.shifts += (distances / np.sqrt(np.maximum(sides.prod(axis=-1), 1e-9))).tolist()
        self.lost += self._listed(photo, python, rows, self._lowest(artifact))
        self.gained += self._listed(photo, artifact, columns, self._lowest(python))

    def _lowest(self, detections):
        """The score that a face must have to be among these: the threshold, or the last's if there is no more room."""
        is_full = self.max_detections is not None and len(detections) >= self.max_detections
        return float(detections.scores[-1]) if is_full else self.score_threshold

    def _listed(self, photo, detections, matched, lowest):
        alone = np.setdiff1d(np.arange(len(detections)), matched)
        return [
            {
                "photo": photo,
                "score": round(float(detections.scores[i]), 6),
                "box": [round(v, 2) for v in detections.boxes[i].tolist()],
                "near_threshold": bool(detections.scores[i] < lowest + self.tolerance.score),
            }
            for i in alone
        ]

    @property
    def landmark_shift(self) -> float:
        """Mean over the matched faces, float; 0 without any."""
        return float(np.mean(self.shifts)) if self.shifts else 0.0

    def failures(self) -> list[str]:
        """What is over the tolerance: list of str, a line each."""
        allowed, lines = self.tolerance, []
        measured = [("scores", self.scores, allowed.score, "")] if allowed.pixels is not None else []
        if allowed.pixels is not None:
            measured += [(name, getattr(self, name), allowed.pixels, " px") for name in ("boxes", "landmarks")]
        measured.append(("mean landmark shift", self.landmark_shift, allowed.landmark_shift, " of the face"))
        lines += [f"{n}: {value:.3g}{unit}, allowed {most:g}" for n, value, most, unit in measured if not value <= most]
        changed = sum(not face["near_threshold"] for face in self.lost + self.gained)
        if changed > allowed.changed * self.python:
            lines.append(f"faces gained or lost away from the lowest score kept: {changed} of {self.python}")
        if len(self.swapped) > max(1, allowed.swapped * self.python):
            lines.append(f"faces swapped by NMS: {len(self.swapped)} of {self.python}")
        return lines


def match(boxes_a: np.ndarray, boxes_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of boxes of the same face, no box in two pairs, the sum of their overlaps the largest: (rows, columns)."""
    iou = pairwise_iou(boxes_a, boxes_b)
    iou[iou < SAME_FACE] = 0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    real = iou[rows, columns] > 0
    return rows[real], columns[real]


def find_nms_ties(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], candidates: Callable[[], Any], tolerance: Any
) -> list[tuple[int, dict[str, Any]]]:
    """Find pairs that are too far apart because NMS chose the other of two candidates with nearly the same score.

    Such a pair is a tie if Python, too, has the artifact's face among its candidates, within the tolerance of boxes,
    landmarks and scores, and scores it at most `tolerance.tie` below the face that it kept.

    Args:
        pairs: dict of `MEASURED`, each a tuple (Python's, the artifact's) of arrays with a row a face.

    Returns:
        list of (row, dict "score", "candidate_score": Python's of both, "boxes_px", "landmarks_px": how far they are
        apart, "box": Python's).
    """
    apart = {name: _furthest(*pairs[name]) for name in ("boxes", "landmarks")}
    rows = np.flatnonzero(np.maximum(*apart.values()) > tolerance.pixels)
    found = []
    all_of_them: Any = candidates() if len(rows) else ()
    for row in rows:
        kept, wanted = ({name: pairs[name][side][row] for name in MEASURED} for side in (0, 1))
        fits = np.ones(len(all_of_them), np.bool_)
        for name, most in (("boxes", tolerance.pixels), ("landmarks", tolerance.pixels), ("scores", tolerance.score)):
            fits &= _furthest(getattr(all_of_them, name), wanted[name]) <= most
        scores = all_of_them.scores[fits]
        if len(scores) and kept["scores"] - scores.max() <= tolerance.tie:
            swap = {
                "score": round(float(kept["scores"]), 6),
                "candidate_score": round(float(scores.max()), 6),
                "boxes_px": round(float(apart["boxes"][row]), 3),
                "landmarks_px": round(float(apart["landmarks"][row]), 3),
                "box": [round(value, 2) for value in kept["boxes"].tolist()],
            }
            found.append((int(row), swap))
    return found


def _furthest(array, other):
    """Largest difference of a row's numbers: float array, one a row."""
    return np.abs(array - other).max(axis=tuple(range(1, array.ndim)), initial=0)
