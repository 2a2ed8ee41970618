"""Photos to faces around any runtime: load, letterbox, run in batches, restore. No TensorFlow."""

import numbers
from collections import defaultdict

import numpy as np

from retinaface_tf.detections import Detections
from retinaface_tf.image import ImageError, letterbox, load_image

CLOSE_UP_MARGIN = 0.5  # border on each side of a photo looked at once more, as a part of its sides
CLOSE_UP_SIDES = (256, 320)  # short and long side to which it is shrunk then


def detect(run, sources, fill, score_threshold, nms_threshold, max_detections, resize, batch_size, close_ups):
    """Find the faces of a list of photos.

    Args:
        run: function of (images uint8 `[N, H, W, 3]`, windows float32 `[N, 4]`, score_threshold, nms_threshold,
            max_detections) that returns a dict of arrays as `DetectionDecoder` does.
        sources: list of what `load_image` takes.
        fill: three ints, the colour around photos.
        others: as in `RetinaFace.detect`.

    Returns:
        list of `Detections`, in order.

    Raises:
        ImageError: naming the first photo that can't be used.
        ValueError: naming the first option that can't be.
    """
    check_options(score_threshold, nms_threshold, max_detections, resize, batch_size)
    thresholds = (score_threshold, nms_threshold, max_detections)
    results = [None] * len(sources)
    waiting = defaultdict(list)  # canvas shape -> [(index, photo's size, letterbox)]

    def flush(shape):
        batch = waiting.pop(shape)
        images = np.stack([box.canvas for _, _, box in batch]) if len(batch) > 1 else batch[0][2].canvas[None]
        outputs = {
            k: np.asarray(v) for k, v in run(images, np.stack([b.window for *_, b in batch]), *thresholds).items()
        }
        for row, (index, size, box) in enumerate(batch):
            results[index] = _detections({k: v[row] for k, v in outputs.items()}, box, *size)

    for index, source in enumerate(sources):
        try:
            image = load_image(source)
        except ImageError as error:
            raise error if len(sources) == 1 else ImageError(f"photo {index} of {len(sources)}: {error}") from None
        box = letterbox(image, fill, resize)
        shape = box.canvas.shape
        waiting[shape].append((index, image.shape[:2], box))
        if len(waiting[shape]) == batch_size:
            flush(shape)
        elif sum(map(len, waiting.values())) >= 4 * batch_size:
            flush(next(iter(waiting)))  # the shape that has waited longest: memory stays bounded
    for shape in list(waiting):
        flush(shape)
    return results


def _detections(outputs, box, height, width):
    count = int(outputs["count"])
    boxes = box.restore(outputs["boxes"][:count].reshape(-1, 2, 2)).reshape(-1, 4)
    return Detections(
        boxes=np.clip(boxes, 0, np.array([width, height] * 2, np.float32)),
        scores=outputs["scores"][:count],
        landmarks=box.restore(outputs["landmarks"][:count]),
        width=width,
        height=height,
    )


def check_options(score_threshold, nms_threshold, max_detections, resize, batch_size):
    """Raise `ValueError` for the first option of `RetinaFace.detect` that is out of its range."""
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    if resize is not None:
        ok = isinstance(resize, (tuple, list)) and len(resize) == 2
        if not ok or not all(isinstance(v, numbers.Integral) and v > 0 for v in resize) or resize[0] > resize[1]:
            raise ValueError(
                "`resize` must be None or a pair (short side, long side) of positive integers, short <= long. "
                f"Received: resize={resize!r}"
            )
