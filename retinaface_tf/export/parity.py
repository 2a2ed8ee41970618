"""How far are the faces of an artifact from those of the model in Python? NumPy only."""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from retinaface_tf.evaluation.overlap import pairwise_iou

SAME_FACE = 0.5  # boxes that overlap so much are of one face


@dataclass(frozen=True)
class Tolerance:
    """What an artifact may differ by, in pixels of the image that it is given.

    Attributes:
        pixels: largest difference of a box's or a landmark's coordinate, or `None` where only the mean counts.
        score: largest difference of a score. A face whose score is so near to the threshold may come or go.
        landmark_shift: mean distance of the landmarks, as a part of the face's size, the root of its box's area.
        changed: part of the faces that may come or go though their scores are not near the threshold.
        ap: average precision that may be lost, where it is measured.
    """

    pixels: float | None
    score: float
    landmark_shift: float
    changed: float
    ap: float


TOLERANCES = {
    "fp32": Tolerance(pixels=0.05, score=1e-3, landmark_shift=1e-3, changed=0.0, ap=0.001),
    "fp16": Tolerance(pixels=0.5, score=5e-3, landmark_shift=0.01, changed=0.0, ap=0.002),
    "dynamic": Tolerance(pixels=None, score=0.1, landmark_shift=0.02, changed=0.05, ap=0.01),
    "int8": Tolerance(pixels=None, score=0.1, landmark_shift=0.02, changed=0.05, ap=0.01),
}


@dataclass
class Parity:
    """Sums over photos; `add` one after the other.

    Attributes:
        python, artifact, matched: int. Faces of each, and of both.
        boxes, scores, landmarks: float, largest differences of matched faces: pixels, 1, pixels.
        shifts: list of float, the mean landmark distance of each matched face as a part of its size.
        lost, gained: lists of dicts "photo", "score", "box", "near_threshold", of faces that only one has.
    """

    tolerance: Tolerance
    score_threshold: float
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

    def add(self, photo, python, artifact):
        """Compare two `Detections` of a photo; `photo` is its name."""
        rows, columns = match(python.boxes, artifact.boxes)
        self.photos += 1
        self.python += len(python)
        self.artifact += len(artifact)
        self.matched += len(rows)
        for name in ("boxes", "scores", "landmarks"):
            difference = np.abs(getattr(python, name)[rows] - getattr(artifact, name)[columns])
            setattr(self, name, max(getattr(self, name), float(difference.max(initial=0))))
        distances = np.linalg.norm(python.landmarks[rows] - artifact.landmarks[columns], axis=-1).mean(axis=-1)
        sides = python.boxes[rows, 2:] - python.boxes[rows, :2]
        self.shifts += (distances / np.sqrt(np.maximum(sides.prod(axis=-1), 1e-9))).tolist()
        self.lost += self._listed(photo, python, rows)
        self.gained += self._listed(photo, artifact, columns)

    def _listed(self, photo, detections, matched):
        alone = np.setdiff1d(np.arange(len(detections)), matched)
        return [
            {
                "photo": photo,
                "score": round(float(detections.scores[i]), 6),
                "box": [round(v, 2) for v in detections.boxes[i].tolist()],
                "near_threshold": bool(detections.scores[i] < self.score_threshold + self.tolerance.score),
            }
            for i in alone
        ]

    @property
    def landmark_shift(self):
        """Mean over the matched faces, float; 0 without any."""
        return float(np.mean(self.shifts)) if self.shifts else 0.0

    def failures(self):
        """What is over the tolerance: list of str, a line each."""
        allowed, lines = self.tolerance, []
        measured = [("scores", self.scores, allowed.score, "")] if allowed.pixels is not None else []
        if allowed.pixels is not None:
            measured += [(name, getattr(self, name), allowed.pixels, " px") for name in ("boxes", "landmarks")]
        measured.append(("mean landmark shift", self.landmark_shift, allowed.landmark_shift, " of the face"))
        lines += [f"{n}: {value:.3g}{unit}, allowed {most:g}" for n, value, most, unit in measured if not value <= most]
        changed = sum(not face["near_threshold"] for face in self.lost + self.gained)
        if changed > allowed.changed * self.python:
            lines.append(f"faces gained or lost away from the threshold: {changed} of {self.python}")
        return lines


def match(boxes_a, boxes_b):
    """Pairs of boxes of the same face, no box in two pairs, the sum of their overlaps the largest.

    Args:
        boxes_a, boxes_b: arrays `[A, 4]` and `[B, 4]`, `xyxy`; A or B may be 0.

    Returns:
        (rows, columns), two int arrays of the same length.
    """
    iou = pairwise_iou(boxes_a, boxes_b)
    iou[iou < SAME_FACE] = 0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    real = iou[rows, columns] > 0
    return rows[real], columns[real]
