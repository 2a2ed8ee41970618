"""A converted TFLite model gets its names, its order of outputs, and a signature that wants nothing but the image."""

import copy

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

INPUTS = ("images", "windows", "score_threshold", "nms_threshold")
OUTPUTS = ("boxes", "scores", "landmarks", "count")
SIMPLE, ADJUSTABLE = "serving_default", "adjustable"


def add_signatures(flatbuffer, constants):
    """Give a model the signatures `serving_default`, of the image alone, and `adjustable`, of all inputs.

    They are two subgraphs of one file that share every weight; in the first, which is also what an interpreter runs
    that is not told a signature, all inputs but the image are constants. Tensors are called and ordered as the
    signatures' keys: `OUTPUTS` and `INPUTS`.

    Args:
        flatbuffer: `ModelT` of one subgraph and one signature, converted from what `trace_fixed` returns; changed in
            place.
        constants: dict of float32 values for every input but "images".
    """
    ((adjustable,), (signature,)) = flatbuffer.subgraphs, flatbuffer.signatureDefs
    adjustable.inputs = _named(adjustable, {entry.name.decode(): entry for entry in signature.inputs}, INPUTS)
    # A frozen function's outputs are called output_0 and so on, in the order in which a dict is flattened.
    entries = sorted(signature.outputs, key=lambda entry: entry.name)
    adjustable.outputs = _named(adjustable, dict(zip(sorted(OUTPUTS), entries, strict=True)), OUTPUTS)

    simple = copy.deepcopy(adjustable)  # buffers, so weights too, are only referred to
    images, *others = simple.inputs
    for index in others:
        buffer = schema.BufferT()
        value = np.asarray(constants[simple.tensors[index].name.decode()], "<f4")
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        simple.tensors[index].buffer = len(flatbuffer.buffers)
        flatbuffer.buffers.append(buffer)
    simple.inputs = [images]
    flatbuffer.subgraphs = [simple, adjustable]
    flatbuffer.signatureDefs = []
    for index, (key, graph) in enumerate(((SIMPLE, simple), (ADJUSTABLE, adjustable))):
        graph.name = key.encode()
        flatbuffer.signatureDefs.append(_signature(graph, index))


def _named(graph, entries, names):
    """The tensors' indices in the order of `names`, each tensor called so."""
    indices = [entries[name].tensorIndex for name in names]
    for name, index in zip(names, indices, strict=True):
        graph.tensors[index].name = name.encode()
    return indices


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
