"""Write the faces of a clip: a clip with boxes or blurred faces, and a line of JSON for each frame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retinaface_tf.image.drawing import blur, draw
from retinaface_tf.inference.video.faces import Seen
from retinaface_tf.inference.video.writer import VideoWriter


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
