"""Detect and track faces in frames, and mark or blur them: the next frames are decoded while the network runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from retinaface_tf.common.imports import require
from retinaface_tf.image.drawing import blur, draw
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.stream import detect_stream
from retinaface_tf.inference.video.clip import Frame
from retinaface_tf.inference.video.writer import VideoWriter

MEMORY = 1.0  # seconds for which a face that is lost may come back as the same


class FaceTracker:
    """Assign track numbers to the faces of successive frames.

    A face gets its number in its second frame, so a false positive in a single frame gets none.

    Args:
        rate: frames per second.
        iou: float. Lowest IoU of a face with its expected position.

    Raises:
        ImportError: if `trackers` is missing; the message names the extra.
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
    """Find the faces of each frame.

    Args:
        model: object with `detect`: a `RetinaFace`, or a result of `retinaface_tf.load`.
        frames: a `Clip`, or any `Frame`s.
        batch_size: int, frames per batch.
        tracker: `FaceTracker` to number the faces, or `None`.
        options: as in `RetinaFace.detect`.

    Yields:
        `Seen` for each frame, in order.
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


class SupportsWrite(Protocol):
    """A file of text, as far as it is written to."""

    def write(self, text: str, /) -> int: ...


@dataclass
class ClipSummary:
    """Counts of `annotate_clip`.

    Attributes:
        frames: Number of frames.
        faces: Number of faces, each counted in every frame.
        tracks: Number of distinct tracks.
        frames_per_second: Speed after the first batch, in which the network is built; `None` for one batch alone.
        stopped: Whether Ctrl-C ended it.
    """

    frames: int = 0
    faces: int = 0
    tracks: int = 0
    frames_per_second: float | None = None
    stopped: bool = False


def annotate_clip(
    seen: Iterable[Seen],
    *,
    writer: VideoWriter | None = None,
    lines: SupportsWrite | None = None,
    hide: bool = False,
    batch_size: int = 1,
    may_stop: bool = False,
    progress: Callable[[], object] | None = None,
) -> ClipSummary:
    """Write the frames that `faces_in_frames` yields: pictures to `writer`, JSON to `lines`; either may be `None`.

    Args:
        hide: Whether faces are blurred, not marked.
        batch_size: Number of frames of a batch: the first batch is no measure of speed.
        may_stop: Whether Ctrl-C is the usual end, as of a camera. Else it is raised: a part of a clip is half a file.
        progress: Called after each frame.
    """
    summary = ClipSummary()
    tracks: set[int] = set()
    first, begun = 0, time.monotonic()
    try:
        for one in seen:
            if lines:
                lines.write(json.dumps(one.to_dict()) + "\n")
            if writer:
                writer.write(one.frame, _picture(one, hide))
            summary.frames += 1
            summary.faces += len(one.faces)
            if summary.frames == batch_size:
                first, begun = summary.frames, time.monotonic()
            tracks |= {track for track in one.tracks if track is not None}
            if progress:
                progress()
    except KeyboardInterrupt:
        if not may_stop:
            raise
        summary.stopped = True
    summary.tracks = len(tracks)
    if summary.frames > first > 0:
        summary.frames_per_second = (summary.frames - first) / (time.monotonic() - begun)
    return summary


def _picture(seen: Seen, hide: bool) -> np.ndarray:
    if hide:
        return np.asarray(blur(seen.frame.image, seen.faces))
    names = ["" if track is None else f"#{track}" for track in seen.tracks]
    return np.asarray(draw(seen.frame.image, seen.faces, names))
