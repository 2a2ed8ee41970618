"""Weights that tell whether a model has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.heads import MergedHeads, PredictionHead

if TYPE_CHECKING:
    import keras


def telling_kernels(model: keras.Model) -> list[keras.Variable]:
    """The kernels of all heads, and of the first convolution: list of Keras variables.

    Any step of training changes the heads. Reading all 253 variables would cost a twentieth of `detect`.
    """
    layers = model._flatten_layers()
    first, *rest = [layer for layer in layers if isinstance(layer, (ConvBlock, PredictionHead, MergedHeads))]
    dense = [] if model.vertex_decoder is None else model.vertex_decoder.telling_layers
    heads = [b.convolution for b in (first, *(b for b in rest if not isinstance(b, ConvBlock)))]
    return [layer.kernel for layer in (*heads, *dense)]
