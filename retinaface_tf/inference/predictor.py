"""Photos to faces around any runtime: load, letterbox, run in batches, restore. No TensorFlow."""

import numbers
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.types import ImageSource
from retinaface_tf.image.letterbox import letterbox
from retinaface_tf.image.loading import ImageError, load_image
from retinaface_tf.inference import close_up
from retinaface_tf.inference.detections import Detections

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology

WAITING_BATCHES = 4  # so many batches' worth of photos may wait for others of their size
MOST_PIXELS = 8_000_000  # of a batch, unless a single photo has more: its maps take about 60 bytes a pixel


def detect(
    run: Callable[..., Mapping[str, Any]],
    sources: Sequence[ImageSource],
    *,
    fill: Sequence[int],
    largest_anchor: float,
    resize: tuple[int, int] | None,
    batch_size: int,
    close_ups: bool,
    topology: "Topology | None" = None,
    **thresholds: Any,
) -> list[Detections]:
    """Find the faces of a list of photos.

    Args:
        run: function of (images uint8 `[N, H, W, 3]`, windows float32 `[N, 4]`, score_threshold, nms_threshold,
            max_detections) that returns a dict of arrays as `DetectionDecoder` does.
        sources: list of what `load_image` takes.
        fill: three ints, the colour around photos.
        largest_anchor: float, pixels.
        topology: `Topology` of the faces' vertices, if there are any.
        resize, batch_size, close_ups, thresholds: as in `RetinaFace.detect`.

    Returns:
        list of `Detections`, in order.

    Raises:
        ImageError: naming the first photo that can't be used.
        ValueError: naming the first option that can't be.
    """
    check_options(resize=resize, batch_size=batch_size, **thresholds)
    results: list[Any] = [None] * len(sources)
    waiting = defaultdict(list)  # shape -> [(index, photo's height and width, letterbox)]

    def flush(shape):
        batch = waiting.pop(shape)
        boxes = [box for _, _, box in batch]
        found = _look_twice(run, boxes, thresholds, fill, largest_anchor) if close_ups else _run(run, boxes, thresholds)
        for (index, size, box), faces in zip(batch, found, strict=True):
            results[index] = _detections(faces, box, size, topology)

    for index, source in enumerate(sources):
        try:
            image = load_image(source)
        except ImageError as error:
            raise error if len(sources) == 1 else ImageError(f"photo {index} of {len(sources)}: {error}") from None
        box = letterbox(image, fill, resize)
        shape = box.canvas.shape
        waiting[shape].append((index, image.shape[:2], box))
        if len(waiting[shape]) >= min(batch_size, MOST_PIXELS // (shape[0] * shape[1])):
            flush(shape)
        while _too_many(waiting, batch_size):
            flush(next(iter(waiting)))  # the shape that has waited longest
    for shape in list(waiting):
        flush(shape)
    return results


def as_photos(images: ImageSource | Sequence[ImageSource]) -> tuple[list[Any], bool]:
    """What a user gave to `detect` as a list of photos, and whether it was a single one."""
    given: Any = images
    if isinstance(given, (list, tuple)) or getattr(given, "ndim", 0) == 4:
        return list(given), False
    return [given], True


def _too_many(waiting, batch_size):
    """Whether the photos that wait for others of their size take too much memory: bool."""
    pixels = sum(len(batch) * shape[0] * shape[1] for shape, batch in waiting.items())
    return sum(map(len, waiting.values())) >= WAITING_BATCHES * batch_size or pixels > WAITING_BATCHES * MOST_PIXELS


def _run(run, boxes, thresholds):
    """One batch through the network: a dict of arrays for each letterbox, in its canvas' pixels."""
    images = np.stack([box.canvas for box in boxes]) if len(boxes) > 1 else boxes[0].canvas[None]
    outputs = run(images, np.stack([box.window for box in boxes]), **thresholds)
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    counts = outputs.pop("count")
    return [{name: value[row, :count] for name, value in outputs.items()} for row, count in enumerate(counts)]


def _look_twice(run, boxes, thresholds, fill, largest_anchor):
    """As `_run`, with the second look of `close_up` where it is due."""
    wanted = thresholds["score_threshold"]
    hints = _run(run, boxes, {**thresholds, "score_threshold": min(wanted, close_up.HINT_SCORE)})
    found = [{name: array[faces["scores"] >= wanted] for name, array in faces.items()} for faces in hints]
    height, width = boxes[0].canvas.shape[:2]
    due = [i for i in range(len(boxes)) if close_up.is_due(found[i], hints[i], height, width, largest_anchor)]
    if due:
        looks = [close_up.second_look(boxes[i].canvas, fill) for i in due]
        for i, look, faces in zip(due, looks, _run(run, looks, thresholds), strict=True):
            restored = {**faces, **look.restore_faces(faces)}
            merged = close_up.merge(found[i], restored, largest_anchor, thresholds["nms_threshold"])
            found[i] = {name: array[: thresholds["max_detections"]] for name, array in merged.items()}
    return found


def _detections(faces, box, size, topology):
    height, width = size
    restored = box.restore_faces(faces)
    boxes = np.clip(restored.pop("boxes"), 0, np.array([width, height] * 2, np.float32))
    if "vertices" in restored:
        restored["topology"] = topology
    return Detections(boxes=boxes, scores=faces["scores"], width=width, height=height, **restored)


def check_options(
    score_threshold: float, nms_threshold: float, max_detections: int, resize: tuple[int, int] | None, batch_size: int
) -> None:
    """Raise `ValueError` for the first option of `RetinaFace.detect` that is out of its range."""
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
            raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    if resize is not None:
        ok = isinstance(resize, (tuple, list)) and len(resize) == 2
        if not ok or not all(isinstance(v, numbers.Integral) and v > 0 for v in resize) or resize[0] > resize[1]:
            raise ValueError(
                "`resize` must be None or a pair (short side, long side) of positive integers, short <= long. "
                f"Received: resize={resize!r}"
            )
