"""Preprocessing and decoding of the ONNX file, written in ONNX operators.

This is a second implementation of `geometry.decoder`, on purpose. `DetectionDecoder` maps over the images of a batch;
converted, that is a Loop, which OpenVINO and TensorRT handle badly. Here every step takes the batch at once: each image
gets as many places for candidates as the fullest one needs, and ONNX's NonMaxSuppression takes batches too. Nothing
relies on the order in which it answers, which ONNX leaves open.

What guards it: `test_the_decoder_is_the_layer` runs both on the same random predictions, at sizes and limits that reach
every branch; `export verify` compares a whole file with Keras; the bundled photos go through both in every test run.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from retinaface_tf.geometry.box_coder import MAX_LOG_SCALE
from retinaface_tf.geometry.decoder import INCLUSIVE

OPSET = 17  # of 2022: ONNX Runtime 1.12, OpenVINO 2022.2 and TensorRT 8.5 on
IR_VERSION = 8
HEADER = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n'

# The cast comes first, since TensorRT takes bytes only to cast them at once. It costs nothing that could be measured.
PIXELS = """pixels (uint8[N, H, W, 3] images) => (float[N, 3, H, W] pixels, float[1, 4] frame)
<
  float[3, 1, 1] mean = {MEAN}, int64[2] sides = {2, 1}, float[2] corner = {0, 0}, int64[1] first = {0}
>
{
  floats = Cast <to = 1> (images)
  colors = Transpose <perm = [0, 3, 1, 2]> (floats)
  {NORMALIZE}
  shape = Shape (images)
  size = Gather (shape, sides)
  far = Cast <to = 1> (size)
  whole = Concat <axis = 0> (corner, far)
  frame = Unsqueeze (whole, first)
}
"""

PLAIN = "pixels = Sub (colors, mean)"
SCALED = """centered = Sub (colors, mean)
  factor = Constant <value = float[3, 1, 1] {FACTOR}> ()
  pixels = Mul (centered, factor)"""

DECODER = """decoder (
  float[N, A, {ROW}] values, float[A, 4] anchors, float[1, 4] frame,
  float[M, 4] windows, float score_threshold, float nms_threshold, int32 max_detections{VERTEX_INPUTS}
) => (float[N, K, 4] boxes, float[N, K] scores, float[N, K, 5, 2] landmarks, int32[N] count{VERTEX_OUTPUT})
<
  int64 zero = {0}, int64 one = {1}, int64[1] axis_0 = {0}, int64[1] axis_1 = {1}, int64[1] axis_2 = {2},
  int64[1] all = {-1}, int64[2] halves = {2, 2}, int64[4] parts = {2, 2, 2, 10}, int64[2] image_and_place = {0, 2},
  int64[1] four = {4}, int64[2] rows = {-1, {ROW}}, int64[2] rows_4 = {-1, 4}, int64[3] points_5 = {-1, 5, 2},
  int64[2] five_points = {5, 2}, int64 top_k = {TOP_K},
  float none = {0}, float half = {0.5}, float move = {VARIANCE_0}, float grow = {VARIANCE_1},
  float largest = {MAX_LOG_SCALE}, float[4] inclusive = {INCLUSIVE}, float unusable = {-1}, float floor = {-0.5}
>
{
  # Scores: the softmax of two.
  background = Gather <axis = 2> (values, zero)
  face = Gather <axis = 2> (values, one)
  margin = Sub (face, background)
  probability = Sigmoid (margin)

  # As many candidates of each image as the fullest has over the threshold.
  {NUMBER_OF_CANDIDATES}
  places = Unsqueeze (number, axis_0)
  likely, candidate = TopK <axis = 1> (probability, places)

  # Their rows of all images' values, one under the other.
  shape = Shape (values)
  images = Gather (shape, zero)
  anchors_an_image = Gather (shape, one)
  image = Range (zero, images, one)
  image_column = Unsqueeze (image, axis_1)
  image_start = Mul (image_column, anchors_an_image)
  below = Add (candidate, image_start)
  row = Reshape (below, all)
  value_rows = Reshape (values, rows)
  chosen = Gather (value_rows, row)
  anchor = Reshape (candidate, all)

  # Boxes.
  {PARTS}
  {OWN}
  logits, shift, scale, points = Split <axis = 1> ({ANSWERS}, parts)
  small_shift = Mul (shift, move)
  way = Mul (small_shift, own_sides)
  center = Add (own_center, way)
  small_scale = Mul (scale, grow)
  tame_scale = Min (small_scale, largest)
  times = Exp (tame_scale)
  sides = Mul (times, own_sides)
  reach = Mul (sides, half)
  low = Sub (center, reach)
  high = Add (center, reach)
  corners = Concat <axis = 1> (low, high)
  images_1 = Unsqueeze (images, axis_0)
  box_shape = Concat <axis = 0> (images_1, places, four)
  all_boxes = Reshape (corners, box_shape)

  # Cut at the windows; without windows, at the frame.
  again = Concat <axis = 0> (images_1, axis_1)
  frames = Tile (frame, again)
  windows_or_frames = Concat <axis = 0> (windows, frames)
  limits = Slice (windows_or_frames, axis_0, images_1, axis_0)
  limits_3 = Unsqueeze (limits, axis_1)
  first, last = Split <axis = 2> (limits_3, halves)
  lowest = Concat <axis = 2> (first, first)
  highest = Concat <axis = 2> (last, last)
  raised = Max (all_boxes, lowest)
  clipped = Min (raised, highest)
  clipped_low, clipped_high = Split <axis = 2> (clipped, halves)
  lengths = Sub (clipped_high, clipped_low)
  shorter = ReduceMin <axes = [2], keepdims = 0> (lengths)
  visible = Greater (shorter, none)
  sure = GreaterOrEqual (likely, score_threshold)
  may = And (sure, visible)
  usable = Where (may, likely, unusable)

  # Suppression; x and y may change places in it.
  inclusive_boxes = Add (all_boxes, inclusive)
  one_class = Unsqueeze (usable, axis_1)
  asked = Cast <to = 7> (max_detections)
  most = Min (asked, top_k)
  answer = NonMaxSuppression (inclusive_boxes, one_class, most, nms_threshold, floor)
  selected = Gather <axis = 1> (answer, image_and_place)
  selected_scores = GatherND (usable, selected)
  usable_shape = Shape (usable)
  nothing = ConstantOfShape <value = float[1] {-1}> (usable_shape)
  kept = ScatterND (nothing, selected, selected_scores)

  # Highest score first.
  enough = Min (number, most)
  enough_1 = Unsqueeze (enough, axis_0)
  kept_scores, place = TopK <axis = 1> (kept, enough_1)
  there = GreaterOrEqual (kept_scores, none)
  place_start = Mul (image_column, number)
  place_below = Add (place, place_start)
  final = Reshape (place_below, all)
  clipped_rows = Reshape (clipped, rows_4)
  final_boxes = Gather (clipped_rows, final)
  final_points = Gather (points, final)
  final_center = Gather (own_center, final)
  final_sides = Gather (own_sides, final)
  point_pairs = Reshape (final_points, points_5)
  small_pairs = Mul (point_pairs, move)
  side_pairs = Unsqueeze (final_sides, axis_1)
  center_pairs = Unsqueeze (final_center, axis_1)
  point_ways = Mul (small_pairs, side_pairs)
  final_landmarks = Add (center_pairs, point_ways)

  # Zeros beyond the count, up to the full length.
  final_box_shape = Concat <axis = 0> (images_1, enough_1, four)
  final_landmark_shape = Concat <axis = 0> (images_1, enough_1, five_points)
  boxes_in_rows = Reshape (final_boxes, final_box_shape)
  landmarks_in_rows = Reshape (final_landmarks, final_landmark_shape)
  there_3 = Unsqueeze (there, axis_2)
  there_4 = Unsqueeze (there_3, axis_2)
  real_scores = Where (there, kept_scores, none)
  real_boxes = Where (there_3, boxes_in_rows, none)
  real_landmarks = Where (there_4, landmarks_in_rows, none)
  missing = Sub (most, enough)
  missing_1 = Unsqueeze (missing, axis_0)
  pad_2 = Concat <axis = 0> (axis_0, axis_0, axis_0, missing_1)
  pad_3 = Concat <axis = 0> (axis_0, axis_0, axis_0, axis_0, missing_1, axis_0)
  pad_4 = Concat <axis = 0> (axis_0, axis_0, axis_0, axis_0, axis_0, missing_1, axis_0, axis_0)
  scores = Pad (real_scores, pad_2)
  boxes = Pad (real_boxes, pad_3)
  landmarks = Pad (real_landmarks, pad_4)
  there_numbers = Cast <to = 6> (there)
  count = ReduceSum <keepdims = 0> (there_numbers, axis_1)
  {VERTICES}
}
"""

# From where a candidate's box and landmarks are reckoned: centers and sides of its anchor, or of the box that the first
# heads of a cascade make of it, whose four numbers then come last in its row.
OF_ANCHORS = """own = Gather (anchors, anchor)
  own_low, own_high = Split <axis = 1> (own, halves)
  own_sides = Sub (own_high, own_low)
  own_sum = Add (own_low, own_high)
  own_center = Mul (own_sum, half)"""
OF_FIRST_BOXES = """start = Gather (anchors, anchor)
  start_low, start_high = Split <axis = 1> (start, halves)
  start_sides = Sub (start_high, start_low)
  start_sum = Add (start_low, start_high)
  start_center = Mul (start_sum, half)
  first_small_shift = Mul (first_shift, move)
  first_way = Mul (first_small_shift, start_sides)
  own_center = Add (start_center, first_way)
  first_small_scale = Mul (first_scale, grow)
  first_tame_scale = Min (first_small_scale, largest)
  first_times = Exp (first_tame_scale)
  own_sides = Mul (first_times, start_sides)"""

# At any size the number is counted, so that no image sorts more than it must. TensorRT wants it known beforehand.
COUNTED = """reached = GreaterOrEqual (probability, score_threshold)
  reached_numbers = Cast <to = 7> (reached)
  reached_counts = ReduceSum <keepdims = 0> (reached_numbers, axis_1)
  fullest = ReduceMax <keepdims = 0> (reached_counts)
  at_least_one = Max (fullest, one)
  number = Min (at_least_one, top_k)"""
FIXED = "number = Identity (top_k)"


def pixels_text(mean: Sequence[float], std: Sequence[float]) -> str:
    """Bytes `[N, H, W, 3]` to what the network's first convolution sees, `[N, 3, H, W]`: text of an ONNX model."""
    scaled = any(value != 1 for value in std)
    normalize = _fill(SCALED, FACTOR=_tensor(1 / value for value in std)) if scaled else PLAIN
    return HEADER + _fill(PIXELS, NORMALIZE=normalize, MEAN=_tensor(mean))


def decoder_text(
    variances: Sequence[float],
    top_k: int,
    anchors: int | None = None,
    cascade: bool = False,
    embedding: int = 0,
    vertices: tuple[str, str, str] = ("", "", ""),
) -> str:
    """`DetectionDecoder`, with all heads' values side by side as `MergedHeads` has them: text of an ONNX model.

    Args:
        variances: pair of floats. See `geometry.box_coder`.
        top_k: int. Maximum number of candidates per image passed to NMS.
        anchors: int, their number where the size is fixed, or `None`.
        cascade: bool. Whether the first heads' box offsets come last in `values`.
        embedding: int. Numbers of a dense branch, behind the first sixteen in `values`; 0 without one.
        vertices: what stands for such a branch among the inputs, the outputs and the nodes: see `onnx_vertices`.
    """
    parts = {"answers": 16}
    if embedding:
        parts["embedding"] = embedding
    if cascade:
        parts |= {"first_shift": 2, "first_scale": 2}
    return HEADER + _fill(
        DECODER,
        PARTS=_split("chosen", parts) if len(parts) > 1 else "",
        OWN=OF_FIRST_BOXES if cascade else OF_ANCHORS,
        ANSWERS="answers" if len(parts) > 1 else "chosen",
        ROW=str(sum(parts.values())),
        VERTEX_INPUTS=vertices[0],
        VERTEX_OUTPUT=vertices[1],
        VERTICES=vertices[2],
        NUMBER_OF_CANDIDATES=COUNTED if anchors is None else FIXED,
        TOP_K=_tensor([top_k if anchors is None else min(top_k, anchors)]),
        VARIANCE_0=_tensor(variances[:1]),
        VARIANCE_1=_tensor(variances[1:]),
        MAX_LOG_SCALE=_tensor([MAX_LOG_SCALE]),
        INCLUSIVE=_tensor(INCLUSIVE),
    )


def _split(name, parts):
    steps = f"steps = Constant <value = int64[{len(parts)}] {_tensor(parts.values())}> ()"
    return f"{steps}\n  {', '.join(parts)} = Split <axis = 1> ({name}, steps)"


def _fill(text, **values):
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def _tensor(values):
    return "{" + ", ".join(repr(value) for value in values) + "}"


INT64 = 7


def convert_function(function: Any, opset: int, nchw: Sequence[str]) -> Any:
    """A `tf.function` with an input signature as an ONNX model with the same names.

    The inputs in `nchw` shall be `[N, C, H, W]` in the file, though the function has them NHWC.
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
