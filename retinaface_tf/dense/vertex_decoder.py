"""Vertex decoder: an embedding at an anchor becomes the vertices of a face, as in the CVPR 2020 paper."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.dense.topology import Topology

STEP = 0.1  # anchor sides that a vertex moves by when the last layer says 1, as the landmarks' variance

# The decoder in ONNX: two dense layers, the second's weights in anchor sides and its bias with the mean face in it.
ONNX_INPUTS = """,
  float[E, W] hidden_kernel, float[W] hidden_bias, float[W, C] vertex_kernel, float[C] vertex_bias"""
ONNX_NODES = """final_embedding = Gather (embedding, final)
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
  final_middle = Concat <axis = 1> (final_center, no_depth)
  final_middles = Unsqueeze (final_middle, axis_1)
  final_vertices = Add (final_middles, vertex_ways)
  one_face = Constant <value = int64[2] {{V}, 3}> ()
  final_vertex_shape = Concat <axis = 0> (images_1, enough_1, one_face)
  vertices_in_rows = Reshape (final_vertices, final_vertex_shape)
  real_vertices = Where (there_4, vertices_in_rows, none)
  vertices = Pad (real_vertices, pad_4)"""


@keras.saving.register_keras_serializable("retinaface_tf")
class VertexDecoder(keras.layers.Layer):
    """Vertices of single faces, relative to their anchors.

    The heads give an embedding of a few numbers for every anchor; only where a face is wanted, at the anchors that
    learn and at the detections that are kept, two dense layers shared by all anchors turn it into vertices. Where
    the last layer says 0 there is the mean face, upright and as large as the anchor.

    Args:
        topology: dict, `Topology.to_dict`.
        embedding: int. Numbers at an anchor.
        width: int. Units of the hidden layer.

    Input: embeddings `[M, embedding]` and anchors `[M, 4]`, `xyxy` pixels; M may be 0. Output: float32 `[M, V, 3]`,
    x and y in pixels, z in pixels away from the camera, about 0 in the middle of the face.
    """

    needs_labels = True

    def __init__(self, topology: dict[str, Any], embedding: int = 32, width: int = 128, **kwargs: Any) -> None:
        # Pixels stay float32 under every policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.topology = topology
        self.embedding = embedding
        self.width = width
        self.mesh = Topology.from_dict(topology)
        self.mean = mean_in_anchor(self.mesh)
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.hidden = keras.layers.Dense(width, "relu", name="hidden", dtype="float32")
        self.output_layer = keras.layers.Dense(
            self.mean.size, kernel_initializer=small, name="vertices", dtype="float32"
        )

    def build(self, embedding_shape, anchors_shape=None):
        self.hidden.build((None, self.embedding))
        self.output_layer.build((None, self.width))

    def call(self, embedding, anchors):
        offsets = self.output_layer(self.hidden(ops.cast(embedding, "float32")))
        shape = self.mean + STEP * ops.reshape(offsets, (-1, *self.mean.shape))
        centers, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        depth = ops.sqrt(ops.maximum(sides[:, :1] * sides[:, 1:], 0.0))
        zero = ops.zeros_like(depth)
        scale = ops.concatenate([sides, depth], axis=-1)
        return shape * scale[:, None] + ops.concatenate([centers, zero], axis=-1)[:, None]

    def compute_output_spec(self, embedding, anchors):
        return keras.KerasTensor((embedding.shape[0], *self.mean.shape), "float32")

    def onnx_texts(self) -> tuple[str, str, str]:
        """Inputs, outputs and nodes that the decoder adds to an ONNX graph of the detections."""
        count = str(len(self.mean))
        return ONNX_INPUTS, f", float[N, K, {count}, 3] vertices", ONNX_NODES.replace("{V}", count)

    def onnx_weights(self) -> dict[str, np.ndarray]:
        """Values of those inputs that are weights: dict name -> float32 array."""
        last = self.output_layer
        return {
            "hidden_kernel": self.hidden.kernel.numpy(),
            "hidden_bias": self.hidden.bias.numpy(),
            "vertex_kernel": (STEP * last.kernel.numpy()).astype(np.float32),
            "vertex_bias": (STEP * last.bias.numpy() + self.mean.ravel()).astype(np.float32),
        }

    def onnx_append(self, graph: Any, parse: Any, convert: Any) -> Any:
        """The ONNX model `graph` as it is: nothing follows the detections."""
        return graph

    def get_config(self):
        return {
            **super().get_config(),
            "topology": self.topology,
            "embedding": self.embedding,
            "width": self.width,
        }


def mean_in_anchor(topology: Topology) -> np.ndarray:
    """The mean face from the front, filling an anchor: float32 `[V, 3]`, in anchor sides from its center."""
    vertices = topology.vertices.astype(np.float64) * [1, -1, -1]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    flat = (vertices[:, :2] - (low + high)[:2] / 2) / (high - low)[:2]
    depth = (vertices[:, 2] - vertices[:, 2].mean()) / np.sqrt(np.prod((high - low)[:2]))
    return np.concatenate([flat, depth[:, None]], axis=1).astype(np.float32)
