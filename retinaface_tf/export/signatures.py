"""A converted TFLite model gets its names, its order of outputs, and a signature that wants nothing but the image."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

INPUTS = ("images", "windows", "score_threshold", "nms_threshold")
OUTPUTS = ("boxes", "scores", "landmarks", "count")
SIMPLE, DETECT = "serving_default", "detect"


def add_signatures(model: Any, constants: Mapping[str, Any]) -> None:
    """Give a model the signatures `serving_default`, of the image alone, and `detect`, of all inputs.

    They are two subgraphs of one file that share every weight; in the first, which is also what an interpreter runs
    that is not told a signature, all inputs but the image are constants. Tensors are called and ordered as the
    signatures' keys: `OUTPUTS`, maybe "vertices", and `INPUTS`.

    Args:
        model: `ModelT` of one subgraph, with the inputs of `FixedGraph.whole` and its outputs by name; changed in
            place.
        constants: dict of float32 values for every input but "images".
    """
    (detect,) = model.subgraphs
    names = OUTPUTS if len(detect.outputs) == len(OUTPUTS) else (*OUTPUTS, "vertices")
    outputs = dict(zip(sorted(names), detect.outputs, strict=True))
    detect.outputs = [outputs[name] for name in names]
    for number, tensor in enumerate(detect.tensors):
        tensor.name = b"t%d" % number  # the converter's names are long, and nobody's
    for wanted, indices in ((INPUTS, detect.inputs), (names, detect.outputs)):
        for name, index in zip(wanted, indices, strict=True):
            detect.tensors[index].name = name.encode()

    # All that the two have in common is written once: what a flatbuffer refers to, it may refer to twice.
    for part in (*detect.tensors, *detect.operators):
        part.Pack = functools.cache(part.Pack)
    simple = copy.copy(detect)
    simple.tensors = list(detect.tensors)
    for name, index in zip(INPUTS[1:], detect.inputs[1:], strict=True):
        simple.tensors[index] = tensor = copy.copy(detect.tensors[index])
        tensor.Pack = functools.partial(schema.TensorT.Pack, tensor)
        tensor.buffer = len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.asarray(constants[name], "<f4").tobytes(), np.uint8)
        model.buffers.append(buffer)
    simple.inputs = detect.inputs[:1]
    model.subgraphs = [simple, detect]
    model.signatureDefs = []
    for index, (key, graph) in enumerate(((SIMPLE, simple), (DETECT, detect))):
        graph.name = key.encode()
        model.signatureDefs.append(_signature(graph, index))


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
