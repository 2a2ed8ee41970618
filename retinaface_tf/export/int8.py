"""A model in 8-bit integers where they pay, and in floats where faces are told by fine differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from retinaface_tf.export.converter import convert, shapes
from retinaface_tf.export.equalize import equalize
from retinaface_tf.export.graft import graft

if TYPE_CHECKING:
    from retinaface_tf.export.fixed_graph import FixedGraph


# The first part, in floats, ends with this block: docs/tflite.md has what other places cost and bring.
LAST_FLOAT_BLOCK = {"mobilenet_v1": "body_stage1_2_pointwise", "resnet": "body_stem"}


def convert_int8(graph: FixedGraph, photos: Sequence[np.ndarray]) -> Any:
    """Convert a detector with its middle, which is nine tenths of the arithmetic, in integers.

    Args:
        graph: `FixedGraph`, whose network is changed: see `equalize`.
        photos: list of uint8 arrays `[H, W, 3]` of its size, not empty.

    Returns:
        `ModelT` with the inputs and outputs of `graph.whole()`.
    """
    model = convert_features(graph, photos)
    made = shapes(model)
    graft(model, convert(graph.after(made)), feeds=list(range(len(made))))
    return model


def convert_features(graph: FixedGraph, photos: Sequence[np.ndarray]) -> Any:
    """The same up to the maps of `FixedGraph.seam`, as floats: a list, of what the heads read the coarsest last."""
    equalize(graph.network, photos)
    backbone = graph.network.backbone
    layer = next(name for kind, name in LAST_FLOAT_BLOCK.items() if backbone.startswith(kind))
    before = graph.before(layer)

    def samples():
        for photo in photos:
            yield [before(tf.constant(photo[None]))[0].numpy()]

    def prepare(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    model = convert(before)
    graft(model, convert(graph.features(layer), prepare), feeds=[0])
    return model
