"""Options of all export formats. Standard library only."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

MAX_DETECTIONS = 750  # as `RetinaFace.detect` has it
MOST_PIXELS = 50_000_000  # of one image, which then takes 2.5 GB; converters crash on sizes far beyond


@dataclass(frozen=True)
class ExportOptions:
    """Choices for `export_saved_model`, `export_tflite` and `export_onnx`.

    Attributes:
        size: (height, width) in pixels of the images that the artifact takes, or `None` for any size. With a size every
            shape in the artifact is static; any positive size of at most `MOST_PIXELS` works.
        score_threshold: float in [0, 1]. Lowest score kept, where the caller does not say otherwise.
        nms_threshold: float in [0, 1]. IoU above which the lower-scoring box is suppressed; likewise.
        max_detections: int. Maximum number of faces per image; likewise, where the artifact's shapes are not static.
        top_k: int. Maximum number of candidates per image passed to NMS.
        preset: name of the preset that the model came from, or `None`: goes into the metadata.

    Raises:
        ValueError: naming the first option that is out of its range.
    """

    size: tuple[int, int] | None = None
    score_threshold: float = 0.5
    nms_threshold: float = 0.4
    max_detections: int = MAX_DETECTIONS
    top_k: int = 5000
    preset: str | None = None

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            value: Any = getattr(self, name)
            if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
                raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
        for name in ("max_detections", "top_k"):
            value = getattr(self, name)
            if not _is_positive(value):
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        is_pair = isinstance(self.size, (tuple, list)) and len(self.size) == 2
        if self.size is not None and not (is_pair and all(map(_is_positive, self.size))):
            raise ValueError(f"`size` must be None or (height, width) in pixels. Received: size={self.size!r}")
        if self.size is not None and self.size[0] * self.size[1] > MOST_PIXELS:
            raise ValueError(f"`size` must be of at most {MOST_PIXELS} pixels. Received: size={tuple(self.size)}")


def _is_positive(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) > 0
