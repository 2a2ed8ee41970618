"""Run images of any size with an exported model of a fixed size. No TensorFlow."""

from collections.abc import Callable, Sequence

import numpy as np

from retinaface_tf.image.letterbox import fit


def at_size(
    run: Callable[..., dict[str, np.ndarray]], size: tuple[int, int], fill: Sequence[int]
) -> Callable[..., dict[str, np.ndarray]]:
    """Wrap a function for images of one size, (height, width), so that it takes images of any size.

    Images too large are shrunk to fit, none is enlarged: a photo that fits is seen as it is, and the close-up pass
    from as far away as it is meant to be. Both functions are as `predictor.Runtime.run`, `run` of one image at a time.
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
