"""Frames to faces: the next frames are decoded while the network runs on a batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.stream import detect_stream
from retinaface_tf.inference.video.clip import Frame
from retinaface_tf.inference.video.tracking import FaceTracker


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
