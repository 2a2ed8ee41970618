"""Detect and track faces in frames: the next frames are decoded while the network runs on a batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from retinaface_tf.common.imports import require
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.stream import detect_stream
from retinaface_tf.inference.video.clip import Frame

MEMORY = 1.0  # seconds for which a face that is lost may come back as the same


class FaceTracker:
    """Assign track numbers to the faces of successive frames.

    A face gets its number when it is seen in a second frame, so that a false alarm of one frame gets none.

    Args:
        rate: frames a second.
        iou: float. Lowest overlap of a face with where it was expected to be.

    Raises:
        ImportError: without `trackers`, naming the extra.
    """

    def __init__(self, rate: float, iou: float = 0.3) -> None:
        trackers = require("trackers", "video", "tracking faces")
        self._supervision = require("supervision", "video", "tracking faces")
        self.rate, self.iou = rate, iou
        self._tracker = trackers.SORTTracker(
            # The library counts its buffer in frames of a clip of 30 a second.
            lost_track_buffer=max(1, round(MEMORY * 30)),
            frame_rate=float(rate),
            track_activation_threshold=0.0,  # `score_threshold` of the detector has chosen already
            minimum_consecutive_frames=1,
            minimum_iou_threshold=iou,
        )

    def update(self, faces: Detections, seconds: float | None = None) -> list[int | None]:
        """The identity of each face of the next frame, in the order of `faces`; `None` where it is new.

        Args:
            faces: `Detections` of the frame.
            seconds: the frame's time, later than the last one's; `None` for even steps of `rate`.
        """
        found = self._supervision.Detections(
            xyxy=faces.boxes.reshape(-1, 4),
            confidence=faces.scores,
            class_id=np.zeros(len(faces), int),
            data={"index": np.arange(len(faces))},
        )
        tracked = self._tracker.update(found, timestamp=seconds)
        result: list[int | None] = [None] * len(faces)
        for index, number in zip(tracked.data.get("index", ()), tracked.tracker_id, strict=False):
            result[int(index)] = int(number) if number >= 0 else None
        return result


class Model(Protocol):
    """A detector: `RetinaFace`, or an artifact that `retinaface_tf.load` opened."""

    def detect(self, images: Any, /, *, batch_size: int) -> Any: ...


@dataclass(frozen=True)
class Seen:
    """A frame and its faces.

    Attributes:
        frame: `Frame`.
        faces: `Detections`, in pixels of the frame.
        tracks: list of int or `None`, the identity of each face; all `None` without a tracker.
    """

    frame: Frame
    faces: Detections
    tracks: list[int | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python numbers, ready for JSON: frame, seconds, width, height, and faces, each with its track."""
        found = self.faces.to_dict()
        faces = [{"track": track, **face} for track, face in zip(self.tracks, found["faces"], strict=True)]
        return {"frame": self.frame.index, "seconds": round(self.frame.seconds, 6), **found, "faces": faces}


def faces_in_frames(
    model: Model,
    frames: Iterable[Frame],
    *,
    batch_size: int = 8,
    tracker: FaceTracker | None = None,
    **options: Any,
) -> Iterator[Seen]:
    """Find the faces of frame after frame.

    Args:
        model: with `detect`, as `RetinaFace` and what `retinaface_tf.load` opens.
        frames: a `Clip`, or any `Frame`s.
        batch_size: int, frames of a batch.
        tracker: `FaceTracker` to number the faces, or `None`.
        options: of `RetinaFace.detect`.

    Yields:
        `Seen` of every frame, in order.
    """
    found = detect_stream(
        partial(model.detect, batch_size=batch_size, **options),
        ((frame, frame.image) for frame in frames),
        read=lambda image: image,
        batch_size=batch_size,
    )
    for result in found:
        if result.error is not None:
            raise result.error
        frame, faces = result.key, result.detections
        assert faces is not None
        yield Seen(frame, faces, tracker.update(faces, frame.seconds) if tracker else [None] * len(faces))
