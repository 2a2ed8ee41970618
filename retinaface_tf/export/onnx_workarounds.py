"""What tf2onnx 1.17 gets wrong with Keras 3 and TensorFlow 2.21, each with its reason and the day it can go.

1. `tf2onnx.convert.from_keras` asks a Keras 3 model for `_get_save_spec`, which is no more: `convert_function` takes a
   `tf.function`. Stays: a function is also what lets us choose where the graph begins.
2. `FloorDiv` of integers becomes `Div`, which cuts towards zero: `-(-97 // 8)` is then 12 rather than 13, and the file
   has too few anchors, without a warning. `floor_div` puts it right. Goes when the test of it passes without.
3. Nearest resizing to a known size becomes a `Resize` by a scale, whose product with the side is rounded down: 13/7 of
   7 cells may be 12. `resize_nearest` writes the size itself. Goes when tf2onnx does.
4. tf2onnx logs a page on a good day, to the root logger's format: `quietly` lets only errors through.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

INT64 = 7


def convert_function(function: Any, opset: int, nchw: Sequence[str]) -> Any:
    """A traced function as an ONNX model.

    Args:
        function: `tf.function` with an input signature whose tensors have names.
        opset: int.
        nchw: list of names of inputs that shall be `[N, C, H, W]` in the file, though the function has them NHWC.

    Returns:
        `onnx.ModelProto`, whose inputs have the signature's names and outputs those of the function's dict.
    """
    with quietly():
        import tf2onnx

        model, _ = tf2onnx.convert.from_function(
            function,
            input_signature=function.input_signature,
            opset=opset,
            inputs_as_nchw=nchw,
            custom_op_handlers={"FloorDiv": (floor_div, []), "ResizeNearestNeighbor": (resize_nearest, [])},
        )
    _drop_empty_inputs(model)
    return model


def floor_div(ctx: Any, node: Any, name: str, _: Any) -> None:
    """`(a - a mod b) / b`: ONNX's integer `Mod` has the sign of the divisor, as floor division wants it."""
    dividend, divisor = node.input
    rest = ctx.make_node("Mod", [dividend, divisor])
    whole = ctx.make_node("Sub", [dividend, rest.output[0]])
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    ctx.remove_node(node.name)
    ctx.make_node("Div", [whole.output[0], divisor], outputs=outputs, name=name, shapes=shapes, dtypes=dtypes)


def resize_nearest(ctx: Any, node: Any, name: str, _: Any) -> None:
    """`Resize` of `[N, H, W, C]` by a size: pixel `floor(i * H / height)`, as TensorFlow without half-pixel centers."""
    images, size = node.input
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    channels = ctx.get_shape(images)[3]
    ctx.remove_node(node.name)

    def constant(values, dtype):
        return ctx.make_const(f"{name}_{len(ctx.get_nodes())}", np.array(values, dtype)).output[0]

    channels_first = ctx.make_node("Transpose", [images], attr={"perm": [0, 3, 1, 2]}).output[0]
    sides = ctx.make_node("Cast", [size], attr={"to": INT64}).output[0]
    shape = ctx.make_node("Shape", [channels_first]).output[0]
    batch = ctx.make_node("Gather", [shape, constant([0], np.int64)]).output[0]
    sizes = ctx.make_node("Concat", [batch, constant([channels], np.int64), sides], attr={"axis": 0}).output[0]
    nothing = constant([], np.float32)
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    resized = ctx.make_node("Resize", [channels_first, nothing, nothing, sizes], attr=how).output[0]
    ctx.make_node(
        "Transpose", [resized], attr={"perm": [0, 2, 3, 1]}, outputs=outputs, name=name, shapes=shapes, dtypes=dtypes
    )


def _drop_empty_inputs(model):
    """Leave out the inputs of every `Resize` that say nothing: tf2onnx can only write them as empty constants."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.input[:] = [node.input[0], "", "", node.input[3]]
    used = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


@contextmanager
def quietly() -> Iterator[None]:
    """tf2onnx without its log."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
