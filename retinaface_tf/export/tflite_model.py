"""TFLite models as objects: converted from a traced function, appended to each other, given their signatures."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from retinaface_tf.common.imports import suppress_stderr

OUTPUTS = ("boxes", "scores", "landmarks", "count")
SIMPLE, DETECT = "serving_default", "detect"


def convert(traced: Any, prepare: Callable[[Any], object] | None = None) -> Any:
    """Convert a frozen concrete function, its inputs named, with TensorFlow's converter; `prepare` sets its options.

    The `ModelT` has one subgraph. Its inputs are in the function's order; its outputs too, those of a dict by name.
    Pixels become floats by `_dequantize_pixels`.
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
    _dequantize_pixels(model)
    return model


def _dequantize_pixels(model):
    """Replace the cast of pixels by a dequantization with scale 1 and zero point 0.

    The numbers are the same. But XNNPACK has no cast: the image would be copied by another kernel, on one thread, into
    memory that is not reused.
    """
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        if tensor.type == schema.TensorType.UINT8:
            tensor.quantization = identity = schema.QuantizationParametersT()
            identity.scale, identity.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    for operator in graph.operators:
        cast = model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CAST
        if cast and graph.tensors[operator.inputs[0]].type == schema.TensorType.UINT8:
            operator.opcodeIndex = _place(model.operatorCodes, code)
            operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
            operator.builtinOptions = schema.DequantizeOptionsT()


def output_shapes(flatbuffer: Any) -> list[list[int | None]]:
    """Shapes of a model's outputs: list of lists of int, `None` for a side that varies."""
    (graph,) = flatbuffer.subgraphs
    return [[None if side < 0 else side for side in _shape(graph.tensors[index])] for index in graph.outputs]


def _shape(tensor):
    """A tensor's shape, -1 for a side that varies: list of int."""
    signature = tensor.shapeSignature
    return [int(side) for side in (tensor.shape if signature is None else signature)]


def append_subgraph(front: Any, back: Any, feeds: Mapping[int, int]) -> None:
    """Append the graph of `back` to that of `front`, so that each part can be converted in its own way.

    Args:
        front, back: `ModelT` of one subgraph each. `front` is changed in place, parts of `back` go into it.
        feeds: dict number of an input of `back` -> index of the tensor of `front` that feeds it, of the same shape
            and type. All other inputs of `back` become inputs of the whole, after those of `front`; the outputs are
            those of `back`.

    Raises:
        ValueError: if shapes or types differ.
    """
    (whole,), (added,) = front.subgraphs, back.subgraphs
    codes = [_place(front.operatorCodes, code) for code in back.operatorCodes]
    buffers = [0]  # the first of a model is the empty one
    for buffer in back.buffers[1:]:
        buffers.append(len(front.buffers))
        front.buffers.append(buffer)
    tensors = {-1: -1}  # -1 is an optional input that is not there
    for place, source in feeds.items():
        tensors[added.inputs[place]] = source
        made, wanted = ((_shape(t), t.type) for t in (whole.tensors[source], added.tensors[added.inputs[place]]))
        if made != wanted:
            raise ValueError(f"Parts do not fit: {made[0]} into {wanted[0]}")
    for index, tensor in enumerate(added.tensors):
        if index not in tensors:
            tensors[index] = len(whole.tensors)
            tensor.buffer = buffers[tensor.buffer]
            whole.tensors.append(tensor)
    for operator in added.operators:
        operator.opcodeIndex = codes[operator.opcodeIndex]
        operator.inputs = [tensors[index] for index in operator.inputs]
        operator.outputs = [tensors[index] for index in operator.outputs]
        whole.operators.append(operator)
    others = [index for place, index in enumerate(added.inputs) if place not in feeds]
    whole.inputs = [*whole.inputs, *(tensors[index] for index in others)]
    whole.outputs = [tensors[index] for index in added.outputs]


def _place(codes, code):
    """Where an operator code is in a list that it is added to if need be."""
    for index, other in enumerate(codes):
        if vars(other) == vars(code):
            return index
    codes.append(code)
    return len(codes) - 1


def add_signatures(flatbuffer: Any, defaults: Mapping[str, Any]) -> None:
    """Give a model the signatures `serving_default`, of the image alone, and `detect`, of all inputs.

    They are two subgraphs of one file that share every weight; in the first, which is also what an interpreter runs
    that is not told a signature, all inputs but the image are constants: `defaults`. Tensors are called and ordered as
    the signatures' keys: "images" and those of `defaults`; `OUTPUTS`, maybe "vertices".
    """
    (detect,) = flatbuffer.subgraphs
    names = OUTPUTS if len(detect.outputs) == len(OUTPUTS) else (*OUTPUTS, "vertices")
    outputs = dict(zip(sorted(names), detect.outputs, strict=True))
    detect.outputs = [outputs[name] for name in names]
    for number, tensor in enumerate(detect.tensors):
        tensor.name = b"t%d" % number  # the converter's names are long, and nobody's
    for wanted, indices in ((("images", *defaults), detect.inputs), (names, detect.outputs)):
        for name, index in zip(wanted, indices, strict=True):
            detect.tensors[index].name = name.encode()

    # All that the two have in common is written once: what a flatbuffer refers to, it may refer to twice.
    for part in (*detect.tensors, *detect.operators):
        part.Pack = functools.cache(part.Pack)
    simple = copy.copy(detect)
    simple.tensors = list(detect.tensors)
    for value, index in zip(defaults.values(), detect.inputs[1:], strict=True):
        simple.tensors[index] = tensor = copy.copy(detect.tensors[index])
        tensor.Pack = functools.partial(schema.TensorT.Pack, tensor)
        tensor.buffer = len(flatbuffer.buffers)
        buffer = schema.BufferT()
        dtype = "<i4" if tensor.type == schema.TensorType.INT32 else "<f4"
        buffer.data = np.frombuffer(np.asarray(value, dtype).tobytes(), np.uint8)
        flatbuffer.buffers.append(buffer)
    simple.inputs = detect.inputs[:1]
    flatbuffer.subgraphs = [simple, detect]
    flatbuffer.signatureDefs = []
    for index, (key, graph) in enumerate(((SIMPLE, simple), (DETECT, detect))):
        graph.name = key.encode()
        flatbuffer.signatureDefs.append(_signature(graph, index))


def _signature(graph, subgraph_index):
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = graph.name, subgraph_index
    signature.inputs = [_entry(graph, index) for index in graph.inputs]
    signature.outputs = [_entry(graph, index) for index in graph.outputs]
    return signature


def _entry(graph, index):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def attach_buffer(flatbuffer: Any, name: str, content: bytes) -> None:
    """Put bytes into a model's buffers under a name."""
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = name.encode(), len(flatbuffer.buffers)
    flatbuffer.buffers.append(buffer)
    flatbuffer.metadata = [*(flatbuffer.metadata or []), entry]


def to_bytes(flatbuffer: Any) -> bytes:
    """A model as the bytes of a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer))
