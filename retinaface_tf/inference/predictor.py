"""Detect faces with any runtime: load photos, letterbox, run batches, restore. Does not import TensorFlow."""

from __future__ import annotations

import numbers
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retinaface_tf.common.types import ImageSource, PhotoWarning, Resize
from retinaface_tf.image.letterbox import letterbox, resized_size
from retinaface_tf.image.loading import MAX_PIXELS as MAX_IMAGE_PIXELS
from retinaface_tf.image.loading import ImageError, ReducedPhoto, load_reduced
from retinaface_tf.inference import close_up
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.tiles import WHOLE_PIXELS, run_tiles
from retinaface_tf.inference.zoom import zoom

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology

WAITING_BATCHES = 4  # photos that wait for others of their size, in batches
MAX_CANDIDATES = 5000  # passed to NMS; no photo has more faces
ROOM = 750  # lowest number of faces that a pass may find if further passes follow
MAX_PIXELS = 8_000_000  # of a batch, unless a single photo has more: its feature maps take about 60 bytes a pixel


class Runtime(Protocol):
    """What runs an artifact.

    Attributes:
        metadata: dict, see `artifact.SCHEMA`.
    """

    metadata: dict[str, Any]

    def run(
        self, images: np.ndarray, windows: np.ndarray, score_threshold: float, nms_threshold: float, max_detections: int
    ) -> Mapping[str, Any]:
        """Run a batch.

        Args:
            images: uint8 `[N, H, W, 3]`, of any size; `tiles.at_size` brings them to the size of an artifact that
                has one.
            windows: float32 `[N, 4]`, `xyxy` pixels: the part of each image that is photo.
            score_threshold, nms_threshold, max_detections: as in `RetinaFace.detect`; those that the metadata lists as
                fixed are ignored.

        Returns:
            Dict of arrays "boxes", "scores", "landmarks" and "count", with a mesh "vertices", as `DetectionDecoder`
            returns them.
        """


class Detector:
    """An exported model, with the same `detect` as `RetinaFace`.

    Args:
        runtime: `Runtime`.
        reopen: picklable function that opens the detector again in the process that unpickles it. `None`: the runtime
            itself is pickled.

    Attributes:
        metadata: dict, the metadata of the exported file.
        topology: `Topology` of the face meshes, or `None`.
    """

    def __init__(self, runtime: Runtime, reopen: Callable[[], Detector] | None = None) -> None:
        self.runtime = runtime
        self.reopen = reopen
        self.metadata = runtime.metadata
        self.topology: Topology | None = None
        if dense := self.metadata.get("architecture", {}).get("dense"):
            from retinaface_tf.dense.topology import Topology

            self.topology = Topology.from_dict(dense["topology"])

    def __repr__(self) -> str:
        return f"Detector({self.runtime!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.runtime,)) if self.reopen is None else (self.reopen, ())

    def detect(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        resize: Resize = "auto",
        batch_size: int = 8,
        close_ups: bool = True,
        max_pixels: int | None = None,
    ) -> Any:
        """Find the faces of a photo, or of each photo of a list.

        Arguments and result are as in `RetinaFace.detect`. If a threshold or `max_detections` is `None`, the value of
        the export is used, which usually is the default of `RetinaFace.detect`. With a file of a fixed size, neither
        photos nor parts of them are enlarged, so that all runtimes of the file give the same faces.

        Raises:
            ImageError: (a ValueError) if a photo can't be read.
            ValueError: if an option is out of range, or the exported file has another, fixed value for it.
        """
        thresholds = self.thresholds(score_threshold, nms_threshold, max_detections)
        most = thresholds["max_detections"]
        photos, single = as_photos(images)
        any_size = self.metadata["input"]["size"] is None
        # An artifact with room for fewer faces than were asked for reports when it is full.
        report_full = "max_detections" in self.metadata["fixed"] and most >= self.metadata["max_detections"]
        results = detect(
            partial(self._run, report_full=report_full),
            photos,
            fill=self.metadata["fill"],
            largest_anchor=self.metadata["largest_anchor"],
            resize=resize if any_size or not isinstance(resize, str) else None,
            batch_size=batch_size,
            close_ups=close_ups,
            max_pixels=max_pixels,
            any_size=any_size,
            topology=self.topology,
            **thresholds,
        )
        for faces in results:
            if faces.truncated:
                name = faces.source or "a photo"
                warnings.warn(
                    f"{name}: this artifact returns at most {self.metadata['max_detections']} faces per photo; "
                    "there may be more. Export it with a larger --max-detections, or without --size",
                    PhotoWarning,
                    stacklevel=2,
                )
        return results[0] if single else results

    def thresholds(
        self,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> dict[str, Any]:
        """Thresholds for `detect`, where each `None` is replaced by the value of the export.

        Returns:
            dict with "score_threshold", "nms_threshold" and "max_detections".

        Raises:
            ValueError: if one is out of range, or the exported file has another, fixed value for it.
        """
        asked = {"score_threshold": score_threshold, "nms_threshold": nms_threshold, "max_detections": max_detections}
        thresholds: dict[str, Any] = {
            name: self.metadata[name] if value is None else value for name, value in asked.items()
        }
        check_options(**thresholds, resize=None, batch_size=1)
        for name in self.metadata["fixed"]:
            own, asked = self.metadata[name], thresholds[name]
            looser = {"score_threshold": asked < own, "nms_threshold": asked != own, "max_detections": asked > own}
            if looser[name]:
                raise ValueError(
                    f"`{name}` is fixed in this artifact, at {own}. Received: {name}={asked}. "
                    f"Export it again with --{name.replace('_', '-')} {asked}"
                )
        return thresholds

    def _run(self, images, windows, score_threshold, nms_threshold, max_detections, report_full):
        outputs = self.runtime.run(
            images,
            windows,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        # An artifact with fixed thresholds returns faces that were not asked for.
        wanted = (outputs["scores"] >= np.float32(score_threshold)).sum(axis=1)
        count = np.minimum(np.minimum(outputs["count"], wanted), max_detections)
        if report_full:
            outputs["full"] = count >= self.metadata["max_detections"]
        return {**outputs, "count": count}


def detect(
    run: Callable[..., Mapping[str, Any]],
    sources: Sequence[ImageSource],
    *,
    fill: Sequence[int],
    largest_anchor: float,
    resize: Resize,
    batch_size: int,
    close_ups: bool,
    max_pixels: int | None = None,
    any_size: bool = True,
    topology: Topology | None = None,
    **thresholds: Any,
) -> list[Detections]:
    """Find the faces of a list of photos.

    Args:
        run: function of (images uint8 `[N, H, W, 3]`, windows float32 `[N, 4]`, score_threshold, nms_threshold,
            max_detections) that returns a dict of arrays as `DetectionDecoder` does, and maybe "full" `[N]`, whether
            it had no room for more faces.
        sources: list of what `load_image` takes, or of `ReducedPhoto`.
        fill: three ints, the color around photos.
        largest_anchor: float, pixels.
        any_size: bool. Whether `run` takes images of any size. Large photos then run in tiles (see `tiles`), and small
            faces are enlarged (see `zoom`).
        topology: `Topology` of the faces' vertices, if there are any.
        resize, batch_size, close_ups, max_pixels, thresholds: as in `RetinaFace.detect`.

    Raises:
        ImageError: naming the first photo that can't be used.
        ValueError: if an option is out of range; the message names the first one.
    """
    check_options(resize=resize, batch_size=batch_size, max_pixels=max_pixels, **thresholds)
    thresholds["max_detections"] = min(thresholds["max_detections"], MAX_CANDIDATES)
    long_side = max(resize) if isinstance(resize, (tuple, list)) else None
    results: list[Any] = [None] * len(sources)
    waiting = defaultdict(list)  # shape -> [(index, photo's height and width, letterbox)]
    paths = [os.fspath(source) if isinstance(source, (str, os.PathLike)) else None for source in sources]

    def run_batch(boxes, thresholds):
        height, width = boxes[0].canvas.shape[:2]
        if not any_size or height * width <= WHOLE_PIXELS:
            return _run(run, boxes, thresholds)
        nms, most = thresholds["nms_threshold"], thresholds["max_detections"]
        return [
            run_tiles(lambda tile: _run(run, [tile], thresholds)[0], box, largest_anchor, nms, most) for box in boxes
        ]

    def flush(shape):
        batch = waiting.pop(shape)
        boxes = [box for _, _, box in batch]
        if close_ups:
            found = _run_with_close_ups(run_batch, boxes, thresholds, fill, largest_anchor, any_size)
        else:
            found = run_batch(boxes, thresholds)
        for (index, size, box), faces in zip(batch, found, strict=True):
            results[index] = _detections(faces, box, size, topology, paths[index])

    for index, source in enumerate(sources):
        try:
            image = source if isinstance(source, ReducedPhoto) else load_reduced(source, long_side, max_pixels)
            size = (image.height, image.width) if isinstance(image, ReducedPhoto) else image.shape[:2]
            _require_room(size, resize, max_pixels, paths[index])
        except ImageError as error:
            raise error if len(sources) == 1 else ImageError(f"photo {index} of {len(sources)}: {error}") from None
        pixels = image.pixels if isinstance(image, ReducedPhoto) else image
        box = letterbox(pixels, fill, resize, size=size)
        shape = box.canvas.shape
        waiting[shape].append((index, size, box))
        if len(waiting[shape]) >= min(batch_size, MAX_PIXELS // (shape[0] * shape[1])):
            flush(shape)
        while _too_many(waiting, batch_size):
            flush(next(iter(waiting)))  # the shape that waited longest
    for shape in list(waiting):
        flush(shape)
    return results


def _require_room(size, resize, max_pixels, path):
    """Refuse a photo that `resize` would enlarge beyond the limit of a photo: `ImageError`."""
    if not isinstance(resize, (tuple, list)):
        return
    height, width = resized_size(size[0], size[1], (resize[0], resize[1]))
    most = MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if height * width > max(most, size[0] * size[1]):
        raise ImageError(
            f"{path or 'a photo'}: resize={resize} makes it {width}x{height}, more than the limit of {most / 1e6:g} "
            "megapixels. Choose a smaller resize (--resize), or raise max_pixels (--max-pixels)"
        )


def as_photos(images: ImageSource | Sequence[ImageSource]) -> tuple[list[Any], bool]:
    """The argument of `detect` as a list of photos, and whether it was a single photo."""
    given: Any = images
    if isinstance(given, (list, tuple)) or getattr(given, "ndim", 0) == 4:
        return list(given), False
    return [given], True


def _too_many(waiting, batch_size):
    """Whether the photos that wait for others of their size are too many or too large."""
    pixels = sum(len(batch) * shape[0] * shape[1] for shape, batch in waiting.items())
    return sum(map(len, waiting.values())) >= WAITING_BATCHES * batch_size or pixels > WAITING_BATCHES * MAX_PIXELS


def _run(run, boxes, thresholds):
    """Run one batch: a dict of arrays for each letterbox, in pixels of its canvas."""
    images = np.stack([box.canvas for box in boxes]) if len(boxes) > 1 else boxes[0].canvas[None]
    outputs = run(images, np.stack([box.window for box in boxes]), **thresholds)
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    counts = outputs.pop("count")
    if "full" in outputs:
        outputs["full"] = np.repeat(outputs["full"][:, None], outputs["scores"].shape[1], axis=1)
    return [{name: value[row, :count] for name, value in outputs.items()} for row, count in enumerate(counts)]


def _run_with_close_ups(run, boxes, thresholds, fill, largest_anchor, any_size):
    """As `_run`, with the close-up pass and the zoom pass where they are due."""
    wanted, most = thresholds["score_threshold"], thresholds["max_detections"]
    if any_size:  # With little room, the first pass would hide uncertain faces, and the second pass would lose faces.
        thresholds = {**thresholds, "max_detections": max(most, ROOM)}
    hints = run(boxes, {**thresholds, "score_threshold": min(wanted, close_up.HINT_SCORE)})
    found = [{name: array[faces["scores"] >= wanted] for name, array in faces.items()} for faces in hints]
    for faces, all_hints in zip(found, hints, strict=True):
        if "full" in faces and len(faces["scores"]) < len(all_hints["scores"]):
            faces["full"][:] = False  # the room that was left went to hints
    height, width = boxes[0].canvas.shape[:2]
    due = [i for i in range(len(boxes)) if close_up.is_due(found[i], hints[i], height, width, largest_anchor)]
    if due:
        views = [close_up.close_up_view(boxes[i].canvas, fill) for i in due]
        for i, view, faces in zip(due, views, run(views, thresholds), strict=True):
            restored = {**faces, **view.restore_faces(faces)}
            found[i] = close_up.merge(found[i], restored, largest_anchor, thresholds["nms_threshold"])
    for i, box in enumerate(boxes if any_size else ()):
        again = partial(run, thresholds=thresholds)
        found[i] = zoom(again, box.canvas, found[i], hints[i], fill, thresholds["nms_threshold"])
    return [{name: array[:most] for name, array in faces.items()} for faces in found]


def _detections(faces, box, size, topology, source):
    height, width = size
    restored = box.restore_faces(faces)
    boxes = np.clip(restored.pop("boxes"), 0, np.array([width, height] * 2, np.float32))
    if "vertices" in restored:
        restored["topology"] = topology
    truncated = bool("full" in faces and faces["full"].any())
    return Detections(
        boxes=boxes, scores=faces["scores"], width=width, height=height, source=source, truncated=truncated, **restored
    )


def check_options(
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    resize: Resize,
    batch_size: int,
    max_pixels: int | None = None,
) -> None:
    """Raise `ValueError` for the first option of `RetinaFace.detect` that is out of its range."""
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
            raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
    if max_pixels is None:
        max_pixels = MAX_IMAGE_PIXELS
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size), ("max_pixels", max_pixels)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    if resize is not None and not (isinstance(resize, str) and resize == "auto"):
        ok = isinstance(resize, (tuple, list)) and len(resize) == 2
        if not ok or not all(isinstance(v, numbers.Integral) and v > 0 for v in resize) or resize[0] > resize[1]:
            raise ValueError(
                "`resize` must be None, 'auto' or a pair (short side, long side) of positive integers, short <= long. "
                f"Received: resize={resize!r}"
            )
