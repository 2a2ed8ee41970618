"""What tf2onnx 1.17 gets wrong with Keras 3 and TensorFlow 2.21, each with its reason and the day it can go.

1. `tf2onnx.convert.from_keras` asks a Keras 3 model for `_get_save_spec`, which is no more: `convert_function` takes a
   `tf.function`. Stays: a function is also what lets us choose where the graph begins.
2. `FloorDiv` of integers becomes `Div`, which cuts towards zero: `-(-97 // 8)` is then 12 rather than 13, and the file
   has too few anchors, without a warning. `floor_div` puts it right. Goes when the test of it passes without.
3. Nearest resizing becomes a `Resize` with the coordinate transformation `tf_half_pixel_for_nn`, which ONNX gave up
   with opset 13 and OpenVINO and TensorRT need not know; `double_by_scale` says the same with `asymmetric` and a scale
   of 2. Goes when tf2onnx writes a form that is still in the operator's specification.
4. tf2onnx logs a page on a good day, to the root logger's format: `quietly` lets only errors through.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


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
            custom_op_handlers={"FloorDiv": (floor_div, [])},
        )
    double_by_scale(model)
    return model


def floor_div(ctx: Any, node: Any, name: str, args: Any) -> None:
    """`(a - a mod b) / b`: ONNX's integer `Mod` has the sign of the divisor, as floor division wants it."""
    dividend, divisor = node.input
    rest = ctx.make_node("Mod", [dividend, divisor])
    whole = ctx.make_node("Sub", [dividend, rest.output[0]])
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    ctx.remove_node(node.name)
    ctx.make_node("Div", [whole.output[0], divisor], outputs=outputs, name=name, shapes=shapes, dtypes=dtypes)


def double_by_scale(model: Any) -> None:
    """Write every nearest `Resize` of the network, which all double both sides, in the form that stays in ONNX."""
    from onnx import helper, numpy_helper

    scales = "scales_of_two"
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        keep = [a for a in node.attribute if a.name in ("mode", "nearest_mode")]
        del node.attribute[:]
        node.attribute.extend([*keep, helper.make_attribute("coordinate_transformation_mode", "asymmetric")])
        node.input[:] = [node.input[0], "", scales]
    used = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if scales in used:
        tensors.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), scales))
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
