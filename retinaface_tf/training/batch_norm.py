"""Frozen parts of a model, and the statistics of batch normalization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    import keras

    from retinaface_tf.detector import RetinaFace


def freeze(model: RetinaFace, batch_norm: bool = False, body_stages: int = 0, detector: bool = False) -> None:
    """Freeze a part of a model that is about to be compiled.

    Args:
        batch_norm: bool. Its scales, shifts and statistics stay, and training normalizes by the statistics, not by the
            batch.
        body_stages: int. Number of stages of the backbone that stay, normalization too: stage 1 to 3 of a MobileNet
            (strides up to 8, 16, 32), layer 1 to 4 of a ResNet, whose stem goes with layer 1.
        detector: bool. Whatever boxes and landmarks come from stays: a dense branch alone learns.

    Raises:
        ValueError: if the backbone has fewer stages, or nothing would be trained for lack of a dense branch.
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


def needs_unfolding(model: RetinaFace) -> bool:
    """Whether batch normalization that was folded away is to learn: it has no statistics to be normalized by."""
    return learns(model) and not is_fresh(model) and is_folded_away(model)


def synchronize_batch_norm(model: RetinaFace) -> None:
    """Let every batch normalization use the batch of all replicas instead of its replica's part."""
    for block in model.conv_blocks:
        block.normalisation.synchronized = True


def is_fresh(model: RetinaFace) -> bool:
    """Whether some batch normalization of a model has never seen data: its statistics say nothing about its input."""
    for block in model.conv_blocks:
        norm = block.normalisation
        start = ((norm.gamma, 1), (norm.beta, 0), (norm.moving_mean, 0), (norm.moving_variance, 1))
        if all((variable.numpy() == value).all() for variable, value in start):
            return True
    return False


def is_folded_away(model: RetinaFace) -> bool:
    """Whether no batch normalization of a model has a mean: as in random and in folded weights."""
    return not any(block.normalisation.moving_mean.numpy().any() for block in model.conv_blocks)


def learns(model: RetinaFace) -> bool:
    """Whether the statistics of some batch normalization change in training."""
    return any(block.normalisation.trainable for block in model.conv_blocks)


def unfold_batch_norm(model: RetinaFace, batches: Iterable[Any]) -> None:
    """Give folded batch normalization real statistics, without changing the predictions.

    Folded weights come with mean 0 and variance 1, which is not what their convolutions put out: a training step that
    normalizes by the batch would start from another network. The statistics are measured, and scale and shift changed
    so that the normalization stays the same: in inference the predictions are as before, in training nearly so.
    `batches` are images `[N, H, W, 3]` of the kind that training will see; ValueError without one.
    """
    for norm, mean, variance in _measure(model, batches, _as_it_is):
        gamma, beta, old_mean, old_variance = (
            v.numpy().astype(float) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / np.sqrt(old_variance + norm.epsilon)
        norm.gamma.assign(scale * np.sqrt(variance + norm.epsilon))
        norm.beta.assign(beta + scale * (mean - old_mean))
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)


def recompute_bn_stats(model: RetinaFace, batches: Iterable[Any]) -> None:
    """Precise batch norm: measure the statistics of every batch normalization again (arXiv 2105.07576, section 3).

    The moving averages of training lag behind the weights and are as noisy as its batches are small. Here each layer
    normalizes by the batch, as in training, and the statistics of all batches together replace the moving ones. Those
    of layers that do not learn stay. `batches` are images `[N, H, W, 3]` as training sees them, 16 and more in each.
    """
    for norm, mean, variance in _measure(model, batches, _by_the_batch):
        if norm.trainable:
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)


def batch_norm_stats(model: RetinaFace) -> list[tuple[keras.Variable, np.ndarray]]:
    """Pairs (variable, its value now) of the moving statistics of a model, to be put back by `assign`."""
    norms = [block.normalisation for block in model.conv_blocks]
    return [(v, v.numpy()) for norm in norms for v in (norm.moving_mean, norm.moving_variance)]


def _measure(model, batches, normalize):
    """[(batch normalization, mean of its input, variance of its input)], over all batches together."""
    blocks = model.conv_blocks
    recorders = [_Recorder(block.normalisation, normalize) for block in blocks]
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
    return [(recorder.layer, *recorder.moments()) for recorder in recorders]


def _as_it_is(layer, x, mean, variance):
    return layer(x, training=False)


def _by_the_batch(layer, x, mean, variance):
    if not layer.trainable:
        return layer(x, training=False)
    normalized = tf.nn.batch_normalization(
        tf.cast(x, tf.float32), mean, variance, layer.beta, layer.gamma, layer.epsilon
    )
    return tf.cast(normalized, layer.compute_dtype)


class _Recorder:
    """Stands in for a batch normalization and records the moments of its input."""

    def __init__(self, layer, normalize):
        self.layer = layer
        self.normalize = normalize
        self.sums = []

    def __call__(self, x, training=None):
        values = tf.cast(x, tf.float32)
        mean, variance = tf.nn.moments(values, axes=[0, 1, 2])
        size = np.prod(values.shape[:3])
        self.sums.append([size, size * mean.numpy().astype(float), size * (variance + mean**2).numpy().astype(float)])
        return self.normalize(self.layer, x, mean, variance)

    def moments(self):
        size, first, second = (sum(parts) for parts in zip(*self.sums, strict=True))
        mean = first / size
        return mean, np.maximum(second / size - mean**2, 0.0)
