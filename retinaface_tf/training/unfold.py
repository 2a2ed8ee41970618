"""Batch normalisation given back to weights from which it had been folded away, without changing what they answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from retinaface_tf.network.fold import conv_blocks

if TYPE_CHECKING:
    import keras

    from retinaface_tf.detector import RetinaFace


def calibrate(model: RetinaFace, batches: Iterable[Any]) -> None:
    """Measure what every convolution puts out, and write it into its batch normalisation as mean and variance.

    Folded weights come with mean 0 and variance 1, which is not what their convolutions put out: a training step that
    normalises by the batch would start from another network. Scale and shift are changed so that the normalisation by
    the new statistics is the old one: in inference the model answers as before, and in training nearly so.

    Args:
        model: `RetinaFace`, not folded.
        batches: iterable of images `[N, H, W, 3]`, of the kind that training will see.

    Raises:
        ValueError: no batch.
    """
    blocks = conv_blocks(model)
    recorders = [_Recorder(block.normalisation) for block in blocks]
    count = 0
    try:
        for block, recorder in zip(blocks, recorders, strict=True):
            object.__setattr__(block, "normalisation", recorder)  # past Keras' tracking: it is only for a moment
        for images in batches:
            model(images, training=False)
            count += 1
    finally:
        for block, recorder in zip(blocks, recorders, strict=True):
            object.__setattr__(block, "normalisation", recorder.layer)
    if not count:
        raise ValueError("`batches` must hold at least one batch of images to measure")
    for recorder in recorders:
        _rewrite(recorder.layer, *recorder.moments())


def is_uncalibrated(model: keras.Model) -> bool:
    """Whether no batch normalisation of a model has a mean: what fresh weights have, and folded ones."""
    return not any(block.normalisation.moving_mean.numpy().any() for block in conv_blocks(model))


class _Recorder:
    """Stands in for a batch normalisation in inference, and notes what comes in."""

    def __init__(self, layer):
        self.layer = layer
        self.sums = []

    def __call__(self, x, training=None):
        values = tf.cast(x, tf.float32)
        mean, variance = tf.nn.moments(values, axes=[0, 1, 2])
        size = np.prod(values.shape[:3])
        self.sums.append([size, size * mean.numpy().astype(float), size * (variance + mean**2).numpy().astype(float)])
        return self.layer(x, training=False)

    def moments(self):
        size, first, second = (sum(parts) for parts in zip(*self.sums, strict=True))
        mean = first / size
        return mean, np.maximum(second / size - mean**2, 0.0)


def _rewrite(norm, mean, variance):
    gamma, beta, old_mean, old_variance = (
        v.numpy().astype(float) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(old_variance + norm.epsilon)
    norm.gamma.assign(scale * np.sqrt(variance + norm.epsilon))
    norm.beta.assign(beta + scale * (mean - old_mean))
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(variance)
