"""Two TFLite models become one: what the first returns goes into the second.

So each part can be converted in its own way, one to integers and the next in floats.
"""

from collections.abc import Sequence
from typing import Any


def graft(front: Any, back: Any, feeds: Sequence[int]) -> None:
    """Append `back` to `front`.

    Args:
        front, back: `ModelT` of one subgraph each. `front` is changed in place, parts of `back` go into it.
        feeds: list of int. The i-th output of `front` becomes input number `feeds[i]` of `back`, which has its shape
            and type. All other inputs of `back` become inputs of the whole, after those of `front`.
    """
    (whole,), (added,) = front.subgraphs, back.subgraphs
    codes = [_place(front.operatorCodes, code) for code in back.operatorCodes]
    buffers = [0]  # the first of a model is the empty one
    for buffer in back.buffers[1:]:
        buffers.append(len(front.buffers))
        front.buffers.append(buffer)
    tensors = {-1: -1}  # -1 is an optional input that is not there
    for output, place in zip(whole.outputs, feeds, strict=True):
        tensors[added.inputs[place]] = output
        made, wanted = (
            (graph.tensors[index].shape.tolist(), graph.tensors[index].type)
            for graph, index in ((whole, output), (added, added.inputs[place]))
        )
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
