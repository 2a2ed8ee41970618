"""One photo's truth, as every annotation reader hands it on and every shard stores it. No TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# States of a landmark.
NOT_LABELLED, OCCLUDED, VISIBLE = -1, 0, 1
# WIDER FACE's flags; values as in `FLAG_MEANINGS`, UNKNOWN where the source says nothing.
UNKNOWN = -1
FLAG_MEANINGS = {
    "blur": ("clear", "normal", "heavy"),
    "expression": ("typical", "extreme"),
    "illumination": ("normal", "extreme"),
    "invalid": ("valid", "invalid"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
}
FLAGS = tuple(FLAG_MEANINGS)


@dataclass(frozen=True, eq=False)
class Record:
    """The faces of one photo, in pixels of the file as stored: EXIF orientation is not applied.

    Attributes:
        name: path of the photo below the images folder, with `/`.
        boxes: float64 `[N, 4]`, `xyxy`. As the source says: may be empty, reach outside or have no area.
        landmarks: float64 `[N, 5, 2]`, x and y; 0 where not labelled.
        visible: int64 `[N, 5]`: NOT_LABELLED, OCCLUDED or VISIBLE.
        flags: int64 `[N, 6]` in the order of `FLAGS`, or UNKNOWN.
        blur_score: float64 `[N]`, the last number of a line of RetinaFace's label.txt, or UNKNOWN.
        size: (width, height) that the source claims, or None.
        normalized: coordinates are parts of the width and the height, not pixels (YOLO).
    """

    name: str
    boxes: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray
    flags: np.ndarray
    blur_score: np.ndarray
    size: tuple[int, int] | None = field(default=None)
    normalized: bool = False

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, kept: np.ndarray) -> Record:
        """The same photo with the faces that `kept` (bool or int `[N]`) selects."""
        return self.replace(**{key: getattr(self, key)[kept] for key in PER_FACE})

    def replace(self, **changes: Any) -> Record:
        return Record(**{**self.__dict__, **changes})

    def describe(self) -> dict[str, Any]:
        """All of it as JSON can hold it, for a fingerprint: equal records give equal text."""
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(self).items()}


PER_FACE = ("boxes", "landmarks", "visible", "flags", "blur_score")


def make_record(
    name: str,
    boxes: ArrayLike,
    landmarks: ArrayLike | None = None,
    visible: ArrayLike | None = None,
    flags: ArrayLike | None = None,
    blur_score: ArrayLike | None = None,
    **more: Any,
) -> Record:
    """A `Record` from sequences, with what is missing filled in as unknown.

    Args:
        name: str.
        boxes: `[N, 4]`, `xyxy`.
        landmarks: `[N, 5, 2]` or None for none.
        visible: `[N, 5]`; None if no landmarks are labelled.
        flags: `[N, 6]` or None.
        blur_score: `[N]` or None.
        **more: `size`, `normalized`.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    count = len(boxes)
    visible = np.full((count, 5), NOT_LABELLED) if visible is None else np.asarray(visible).reshape(count, 5)
    landmarks = np.zeros((count, 5, 2)) if landmarks is None else np.asarray(landmarks).reshape(count, 5, 2)
    flags = np.full((count, len(FLAGS)), UNKNOWN) if flags is None else np.asarray(flags).reshape(count, len(FLAGS))
    blur_score = np.full(count, UNKNOWN) if blur_score is None else np.asarray(blur_score).reshape(count)
    return Record(
        name=name,
        boxes=boxes,
        landmarks=np.where((visible == NOT_LABELLED)[..., None], 0.0, landmarks).astype(np.float64),
        visible=visible.astype(np.int64),
        flags=flags.astype(np.int64),
        blur_score=blur_score.astype(np.float64),
        **more,
    )
