"""The dense branch in an ONNX file: two layers written in ONNX's operators, or a mesh decoder converted by tf2onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.dense.vertex_decoder import STEP, VertexDecoder
from retinaface_tf.export.onnx_graph import HEADER, IR_VERSION, OPSET
from retinaface_tf.export.onnx_workarounds import convert_function

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace

# A `VertexDecoder`: two dense layers, the second's weights in anchor sides and its bias with the mean face in it.
VERTEX_INPUTS = """,
  float[E, W] hidden_kernel, float[W] hidden_bias, float[W, C] vertex_kernel, float[C] vertex_bias"""
TWO_LAYERS = """final_embedding = Gather (embedding, final)
  hidden_product = MatMul (final_embedding, hidden_kernel)
  hidden_sum = Add (hidden_product, hidden_bias)
  hidden_units = Relu (hidden_sum)
  vertex_product = MatMul (hidden_units, vertex_kernel)
  vertex_row = Add (vertex_product, vertex_bias)
  vertex_rows = Constant <value = int64[3] {-1, {V}, 3}> ()
  vertex_shifts = Reshape (vertex_row, vertex_rows)
  final_width, final_height = Split <axis = 1> (final_sides)
  final_area = Mul (final_width, final_height)
  final_depth = Sqrt (final_area)
  final_scale = Concat <axis = 1> (final_sides, final_depth)
  final_scales = Unsqueeze (final_scale, axis_1)
  vertex_ways = Mul (vertex_shifts, final_scales)
  no_depth = Mul (final_depth, none)
  final_middle = Concat <axis = 1> (final_centre, no_depth)
  final_middles = Unsqueeze (final_middle, axis_1)
  final_vertices = Add (final_middles, vertex_ways)
  one_face = Constant <value = int64[2] {{V}, 3}> ()
  final_vertex_shape = Concat <axis = 0> (images_1, enough_1, one_face)
  vertices_in_rows = Reshape (final_vertices, final_vertex_shape)
  real_vertices = Where (there_4, vertices_in_rows, none)
  vertices = Pad (real_vertices, pad_4)"""

# A `MeshBranch` stands between these two: what it reads, and the shape that its answers shall have.
MESH_OUTPUTS = """,
  float[R, E] final_embedding, float[R, 4] final_own, bool[N, J, 1, 1] final_there,
  int64[4] final_shape, int64[8] final_pads"""
BEFORE_MESH = """final_embedding = Gather (embedding, final)
  final_reach = Mul (final_sides, half)
  final_low = Sub (final_centre, final_reach)
  final_high = Add (final_centre, final_reach)
  final_own = Concat <axis = 1> (final_low, final_high)
  one_face = Constant <value = int64[2] {{V}, 3}> ()
  final_shape = Concat <axis = 0> (images_1, enough_1, one_face)
  final_there = Identity (there_4)
  final_pads = Identity (pad_4)"""
AFTER_MESH = """after (
  float[R, {V}, 3] mesh_vertices, bool[N, J, 1, 1] final_there, int64[4] final_shape, int64[8] final_pads
) => (float[N, K, {V}, 3] vertices)
<float none = {0}>
{
  in_rows = Reshape (mesh_vertices, final_shape)
  real = Where (final_there, in_rows, none)
  vertices = Pad (real, final_pads)
}
"""
TO_MESH, FROM_MESH = ("final_embedding", "final_own"), ("mesh_vertices", "final_there", "final_shape", "final_pads")


def texts_of(model: RetinaFace) -> tuple[str, str, str]:
    """What `decoder_text` is to have of a model's dense branch: inputs, outputs and nodes; empty without one."""
    if model.vertex_decoder is None or model.topology is None:
        return "", "", ""
    count = str(len(model.topology))
    if isinstance(model.vertex_decoder, VertexDecoder):
        return VERTEX_INPUTS, f", float[N, K, {count}, 3] vertices", TWO_LAYERS.replace("{V}", count)
    return "", MESH_OUTPUTS, BEFORE_MESH.replace("{V}", count)


def append_mesh(whole: Any, model: RetinaFace) -> Any:
    """The graph with a `MeshBranch` behind the decoder, or as it is if the model has none: `onnx.ModelProto`."""
    import tensorflow as tf
    from onnx import compose, parser

    branch = model.vertex_decoder
    if model.topology is None or branch is None or isinstance(branch, VertexDecoder):
        return whole
    signature = [
        tf.TensorSpec([None, branch.embedding], tf.float32, name=TO_MESH[0]),
        tf.TensorSpec([None, 4], tf.float32, name=TO_MESH[1]),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def faces(final_embedding, final_own):
        return {FROM_MESH[0]: branch(final_embedding, final_own)}

    mesh = convert_function(faces, OPSET, nchw=[])
    mesh.ir_version = IR_VERSION
    after = parser.parse_model(HEADER + AFTER_MESH.replace("{V}", str(len(model.topology))))
    for name, part, wanted in (("mesh", mesh, TO_MESH), ("after", after, FROM_MESH)):
        compose.add_prefix(part, f"{name}/", rename_inputs=False, rename_outputs=False, inplace=True)
        whole = compose.merge_models(whole, part, io_map=[(one, one) for one in wanted], name="retinaface")
    return whole


def add_vertex_weights(graph: Any, model: RetinaFace) -> None:
    """Give the decoder's inputs that are weights their values: then they are no inputs any more."""
    from onnx import numpy_helper

    if not isinstance(model.vertex_decoder, VertexDecoder):
        return
    hidden, last = model.vertex_decoder.hidden, model.vertex_decoder.output_layer
    weights = {
        "hidden_kernel": hidden.kernel.numpy(),
        "hidden_bias": hidden.bias.numpy(),
        "vertex_kernel": STEP * last.kernel.numpy(),
        "vertex_bias": STEP * last.bias.numpy() + model.vertex_decoder.mean.ravel(),
    }
    inputs = [one for one in graph.input if one.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items())
