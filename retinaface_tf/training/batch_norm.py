"""What learns and what stays: batch normalization, its statistics, and frozen parts of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


def freeze(model: RetinaFace, batch_norm: bool = False, body_stages: int = 0, detector: bool = False) -> None:
    """Fix a part of a model that is about to be compiled.

    Args:
        model: `RetinaFace`, not folded.
        batch_norm: bool. Its scales, shifts and statistics stay, and training normalises by the statistics, not by the
            batch.
        body_stages: int. So many stages of the body stay as they are, normalization too: stage 1 to 3 of a MobileNet
            (strides up to 8, 16, 32), layer 1 to 4 of a ResNet, whose stem goes with layer 1.
        detector: bool. All that boxes and landmarks come from stays: a dense branch alone learns.

    Raises:
        ValueError: there are not so many stages; the model has no dense branch, so nothing would learn.
    """
    stages = model.backbone_stages
    most = max(stages.values())
    if not 0 <= body_stages <= most:
        raise ValueError(f"`body_stages` must be 0 to {most} for this body. Received: body_stages={body_stages}")
    if detector:
        if model.dense is None:
            raise ValueError(
                "`detector=True` leaves a model without a dense branch nothing to learn. Received: model.dense=None"
            )
        for layer in model.layers:
            layer.trainable = layer.name.startswith("vertex_head")  # the decoder is no layer of the graph
    for name, stage in stages.items():
        if stage <= body_stages:
            model.get_layer(name).trainable = False
    if batch_norm:
        for block in model.conv_blocks:
            block.normalisation.trainable = False


def synchronize_batch_norm(model: RetinaFace) -> None:
    """Let every batch normalization use the batch of all replicas instead of its replica's part."""
    for block in model.conv_blocks:
        block.normalisation.synchronized = True


def calibrate(model: RetinaFace, batches: Iterable[Any]) -> None:
    """Measure what every convolution puts out, and write it into its batch normalization as mean and variance.

    Folded weights come with mean 0 and variance 1, which is not what their convolutions put out: a training step that
    normalises by the batch would start from another network. Scale and shift are changed so that the normalization by
    the new statistics is the old one: in inference the model answers as before, and in training nearly so.

    Args:
        model: `RetinaFace`, not folded.
        batches: iterable of images `[N, H, W, 3]`, of the kind that training will see.

    Raises:
        ValueError: no batch.
    """
    blocks = model.conv_blocks
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


def is_uncalibrated(model: RetinaFace) -> bool:
    """Whether no batch normalization of a model has a mean: what fresh weights have, and folded ones."""
    return not any(block.normalisation.moving_mean.numpy().any() for block in model.conv_blocks)


class _Recorder:
    """Stands in for a batch normalization in inference, and notes what comes in."""

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
