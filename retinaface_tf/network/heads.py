"""Prediction heads: 1x1 convolutions that predict a few numbers for each anchor of a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.network.conv_block import CHANNELS_LAST, kernel_initializer

# What is predicted for an anchor: kind -> shape. In a cascade the first heads' predictions are called "first_face" and
# so on; their boxes are the anchors of the others.
HEADS = {"face": (2,), "box": (4,), "landmark": (5, 2)}
FIRST, FIRST_HEADS = "first_", {"face": (2,), "box": (4,)}


def separate_heads(
    contexts: dict[str, keras.KerasTensor],
    anchors: Mapping[str, Sequence[float]],
    heads: Mapping[str, tuple[int, ...]],
    dtype: Any,
    prefix: str = "",
) -> dict[str, keras.KerasTensor]:
    """A head for each level and kind: feature maps to the raw predictions of a `RetinaFace`.

    Args:
        contexts: dict level -> Keras tensor `[N, H, W, C]`.
        anchors: dict level -> anchor sizes, in the same order.
        heads: dict kind -> shape of what is predicted for an anchor, such as `HEADS`.
        dtype: dtype or policy of the layers.
        prefix: str, before the names of layers and predictions.

    Returns:
        dict of float32 Keras tensors `[N, A, *shape]`, of `HEADS`: "face", "box" and "landmark".
    """
    outputs = {}
    for kind, shape in heads.items():
        parts = [
            PredictionHead(len(sizes), shape, name=f"{prefix}{kind}_head_{level}", dtype=dtype)(contexts[level])
            for level, sizes in anchors.items()
        ]
        outputs[prefix + kind] = _concatenate(parts, name=prefix + kind)
    return outputs


def merged_heads(
    contexts: dict[str, keras.KerasTensor],
    anchors: Mapping[str, Sequence[float]],
    heads: Mapping[str, tuple[int, ...]],
    dtype: Any,
    prefix: str = "",
) -> dict[str, keras.KerasTensor]:
    """A head for each level, all kinds in one convolution: arguments and result as in `separate_heads`."""
    values = sum(math.prod(shape) for shape in heads.values())
    parts = [
        MergedHeads(len(sizes), values, name=f"{prefix}heads_{level}", dtype=dtype)(contexts[level])
        for level, sizes in anchors.items()
    ]
    whole = _concatenate(parts, name=f"{prefix}predictions")
    outputs = {}
    for kind, columns in columns_of(heads).items():
        reshape = keras.layers.Reshape((-1, *heads[kind]), dtype="float32", name=prefix + kind)
        outputs[prefix + kind] = reshape(whole[..., columns])
    return outputs


def predict_merged(
    contexts: Mapping[str, Any],
    weights: Mapping[str, tuple[Any, Any]],
    heads: Mapping[str, tuple[int, ...]],
    prefix: str = "",
) -> dict[str, Any]:
    """What `merged_heads` computes, on tensors and without layers.

    `weights` are level -> (kernel, bias) of `merged_weights`, in the dtype of the contexts.
    """
    values = sum(math.prod(shape) for shape in heads.values())
    parts = []
    for level, x in contexts.items():
        kernel, bias = weights[level]
        x = ops.add(ops.conv(x, kernel, data_format=CHANNELS_LAST), ops.reshape(bias, (1, 1, 1, -1)))
        parts.append(_in_rows(x, (values,)))
    whole = ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    batch = ops.shape(whole)[0]
    return {
        prefix + kind: ops.reshape(whole[..., columns], (batch, -1, *heads[kind]))
        for kind, columns in columns_of(heads).items()
    }


def merged_weights(heads: Sequence[PredictionHead]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of one convolution for several heads of a level, in the order in which their values follow."""
    merged = []
    for name in ("kernel", "bias"):
        arrays = [getattr(head.convolution, name).numpy() for head in heads]
        parts = [a.reshape(*a.shape[:-1], h.num_anchors, -1) for a, h in zip(arrays, heads, strict=True)]
        whole = np.concatenate(parts, axis=-1)
        merged.append(whole.reshape(*whole.shape[:-2], -1))
    return merged[0], merged[1]


def _in_rows(x, value_shape):
    """Convolution outputs `[N, H, W, anchors * values]` as float32 rows `[N, H * W * anchors, *value_shape]`."""
    return ops.cast(ops.reshape(x, (ops.shape(x)[0], -1, *value_shape)), "float32")


def columns_of(heads: Mapping[str, tuple[int, ...]]) -> dict[str, slice]:
    """Where each kind's numbers are among those of `MergedHeads`: dict kind -> slice."""
    columns, start = {}, 0
    for kind, shape in heads.items():
        columns[kind] = slice(start, start + math.prod(shape))
        start = columns[kind].stop
    return columns


def _concatenate(parts, name):
    return keras.layers.Concatenate(axis=1, dtype="float32", name=name)(parts) if len(parts) > 1 else parts[0]


@keras.saving.register_keras_serializable("retinaface_tf")
class PredictionHead(keras.layers.Layer):
    """Raw predictions of one level, in the order of its anchors: row, column, size.

    Args:
        num_anchors: int. Anchors at each cell.
        value_shape: tuple of int. What is predicted for an anchor: `(2,)` face logits (background, face), `(4,)` box
            offsets, `(5, 2)` landmark offsets.

    Input: float tensor `[N, H, W, C]`. Output: float32 tensor `[N, H * W * num_anchors, *value_shape]`, float32 also
    under mixed precision, since box sizes pass through an exponential.
    """

    def __init__(self, num_anchors: int, value_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_anchors = num_anchors
        self.value_shape = tuple(value_shape)

        self.convolution = keras.layers.Conv2D(
            num_anchors * math.prod(self.value_shape),
            1,
            kernel_initializer=kernel_initializer("glorot_uniform"),
            data_format=CHANNELS_LAST,
            name="convolution",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self.convolution.build(input_shape)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return _in_rows(self.convolution(inputs), self.value_shape)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        batch, height, width, _ = inputs.shape
        anchors = None if height is None or width is None else height * width * self.num_anchors
        return keras.KerasTensor((batch, anchors, *self.value_shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_anchors": self.num_anchors, "value_shape": list(self.value_shape)}


@keras.saving.register_keras_serializable("retinaface_tf")
class MergedHeads(PredictionHead):
    """All heads of a level in one convolution, for inference: the arithmetic of `PredictionHead`s side by side.

    Starting three small convolutions takes longer than computing them.

    Args:
        num_anchors: int. Anchors at each cell.
        values: int. Numbers predicted for an anchor, over all heads.

    Input: float tensor `[N, H, W, C]`. Output: float32 tensor `[N, H * W * num_anchors, values]`.
    """

    def __init__(self, num_anchors: int, values: int, **kwargs: Any) -> None:
        super().__init__(num_anchors, (values,), **kwargs)
        self.values = values

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["value_shape"]
        return {**config, "values": self.values}
