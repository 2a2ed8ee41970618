"""Frames to faces: the next batch is decoded while the network looks at this one."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.video.clip import Frame
from retinaface_tf.inference.video.tracking import FaceTracker


class Model(Protocol):
    """What finds faces: `RetinaFace`, or an artifact that `retinaface_tf.load` opened."""

    def detect(self, images: Any, /, *, batch_size: int) -> Any: ...


@dataclass(frozen=True)
class Seen:
    """A frame and what is in it.

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
        batch_size: int, frames that are looked at together.
        tracker: `FaceTracker` to number the faces, or `None`.
        options: of `RetinaFace.detect`.

    Yields:
        `Seen` of every frame, in order.
    """
    source = iter(frames)

    def batch() -> list[Frame]:
        return list(islice(source, batch_size))

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch)
        while now := coming.result():
            coming = pool.submit(batch)
            found = model.detect([frame.image for frame in now], batch_size=batch_size, **options)
            for frame, faces in zip(now, found, strict=True):
                yield Seen(frame, faces, tracker.update(faces, frame.seconds) if tracker else [None] * len(faces))
