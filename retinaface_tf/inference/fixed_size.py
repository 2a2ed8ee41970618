"""Run images of any size with an exported model of a fixed size. No TensorFlow."""

from collections.abc import Callable, Sequence

import numpy as np

from retinaface_tf.image.letterbox import fit


def at_size(
    run: Callable[..., dict[str, np.ndarray]], size: tuple[int, int], fill: Sequence[int]
) -> Callable[..., dict[str, np.ndarray]]:
    """Wrap a function for images of one size, so that it takes images of any size.

    Images too large are shrunk to fit, none is enlarged: a photo that fits is seen as it is, and the second look of
    `close_up` from as far away as it is meant to be.

    Args:
        run: function of (images uint8 `[1, *size, 3]`, windows float32 `[1, 4]`, and thresholds by keyword) that
            returns a dict of arrays "boxes" `[1, K, 4]`, "scores" `[1, K]`, "landmarks" `[1, K, 5, 2]`, "count" `[1]`,
            and "vertices" `[1, K, V, 3]` where the model has them.
        size: (height, width) in pixels.
        fill: three ints, the color beside photos that are smaller.

    Returns:
        function of (images uint8 `[N, H, W, 3]`, windows float32 `[N, 4]`, thresholds) that returns the same dict with
        N in front, in pixels of the images it was given.
    """

    def any_size(images, windows, **thresholds):
        rows = [_one(run, image, window, size, fill, thresholds) for image, window in zip(images, windows, strict=True)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return any_size


def _one(run, image, window, size, fill, thresholds):
    box = fit(image, size, fill)
    window = window.reshape(2, 2) * box.scale + box.offset
    outputs = run(box.canvas[None], window.reshape(1, 4).astype(np.float32), **thresholds)
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    if (box.scale == 1).all():
        return outputs
    return {**outputs, **box.restore_faces(outputs)}
