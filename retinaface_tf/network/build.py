"""Build the network from images to raw predictions, with pixel normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from retinaface_tf.network.backbones import get_backbone
from retinaface_tf.network.context_module import build_contexts
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import FIRST, FIRST_HEADS, HEADS, merged_heads, separate_heads

if TYPE_CHECKING:
    import keras


@keras.saving.register_keras_serializable("retinaface_tf")
class PixelNormalization(keras.layers.Layer):
    """`(pixels - mean) / std` for each channel.

    The same numbers as `keras.layers.Rescaling`, which costs a sixth of a whole forward pass on a CPU: broadcasting
    over an innermost axis of three is not vectorized, so here whole rows of pixels are the innermost axis.

    Args:
        mean, std: tuples of a float for each channel.

    Input and output: tensors `[N, H, W, C]`; the input may be of any dtype, the output is of the compute dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        batch, height, width, channels = ops.shape(inputs)
        rows = ops.reshape(inputs, (batch, height, width * channels))
        rows = ops.cast(rows, self.compute_dtype) - self._row(self.mean, width)
        if any(s != 1 for s in self.std):
            rows = rows * self._row([1 / s for s in self.std], width)
        return ops.reshape(rows, (batch, height, width, channels))

    def _row(self, values, width):
        return ops.tile(ops.convert_to_tensor(values, self.compute_dtype), (width,))

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": list(self.mean), "std": list(self.std)}


def stages_of(
    cascade: bool, more_heads: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Mapping[str, tuple[int, ...]]]:
    """Predictions of the network, stage by stage: dict prefix of the predictions' names -> heads (see `HEADS`).

    A cascade has two stages instead of one; `more_heads` are those of the last stage beside `HEADS`.
    """
    heads = {**HEADS, **(more_heads or {})}
    return {FIRST: FIRST_HEADS, "": heads} if cascade else {"": heads}


def build_network(
    images: keras.KerasTensor,
    stages: Mapping[str, Mapping[str, tuple[int, ...]]],
    *,
    backbone: str,
    anchors: Mapping[str, Sequence[float]],
    num_filters: int,
    shared_context: bool,
    deformable: Any,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    folded: bool,
    dtype: Any,
) -> tuple[dict[str, keras.KerasTensor], dict[str, dict[str, keras.KerasTensor]]]:
    """Apply the network to images.

    Args:
        images: Keras tensor `[N, H, W, 3]`.
        stages: dict, see `stages_of`. The first heads of a cascade have plain context modules of their own.
        anchors: dict level -> sizes.
        others: as in `RetinaFace`.

    Returns:
        (dict of Keras tensors, the predictions; dict prefix -> level -> Keras tensor, the inputs of the heads).
    """
    slope = 0.1 if num_filters <= 64 else 0.0
    options = {"folded": folded, "dtype": dtype}
    x = PixelNormalization(pixel_mean, pixel_std, dtype=dtype, name="pixels")(images)
    maps = get_backbone(backbone).build(x, **options)
    features = {level: maps[level] for level in ("C2", "C3", "C4", "C5")}  # a backbone may return more
    pyramid = FeaturePyramid(tuple(anchors), num_filters, slope, deformable=deformable, name="pyramid", **options)(
        features
    )
    make_heads = merged_heads if folded else separate_heads
    outputs, contexts = {}, {}
    for prefix, heads in stages.items():
        own = {**options, "deformable": None if prefix == FIRST else deformable}
        contexts[prefix] = build_contexts(pyramid, num_filters, slope, shared_context, prefix, **own)
        outputs |= make_heads(contexts[prefix], anchors, heads, dtype, prefix)
    return outputs, contexts
