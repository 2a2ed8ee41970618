"""TensorFlow's converter to TFLite, with inputs and outputs in the order that was meant."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from retinaface_tf.common.imports import suppress_stderr


def convert(traced: Any, prepare: Callable[[Any], object] | None = None) -> Any:
    """A traced function as a TFLite model.

    Args:
        traced: frozen concrete function, its inputs named.
        prepare: function that sets the converter's options, or `None`.

    Returns:
        `ModelT` of one subgraph. Its inputs are in the function's order; its outputs too, those of a dict by name.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
    if prepare is not None:
        prepare(converter)
    with suppress_stderr():  # with integers it says there how it was set
        content = converter.convert()
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    ((graph,), (signature,)) = model.subgraphs, model.signatureDefs
    inputs = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    names = [tensor.name.split(":")[0] for tensor in traced.inputs]
    graph.inputs = [inputs[name] for name in names]
    # A frozen function's outputs are called output_0 and so on, in the order in which a dict is flattened.
    outputs = {int(entry.name.decode().rpartition("_")[2]): entry.tensorIndex for entry in signature.outputs}
    graph.outputs = [outputs[number] for number in sorted(outputs)]
    return model


def shapes(model: Any) -> list[list[int]]:
    """Shapes of a model's outputs: list of lists of int."""
    (graph,) = model.subgraphs
    return [list(graph.tensors[index].shape) for index in graph.outputs]
