"""The dense branch as `RetinaFace` sees it: its configuration, and the layer that decodes faces.

A branch is a layer of (rows `[M, D]` of the predictions "vertex", anchors `[M, 4]`) to vertices `[M, V, 3]`, with
`mesh`, the `Topology` of its vertices.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.mesh_branch import MeshBranch
from retinaface_tf.dense.mesh_decoder import build_hierarchy
from retinaface_tf.dense.renderer import CAMERA, LIGHT
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


SIZES = {"embedding": 32, "width": 128}
MESH_SIZES = {"filters": 16, "order": 3, "codes": 128}
LARGEST_SIZE = 4096  # of any of these
SIMPLIFICATION = {"levels": 4, "factor": 4}


def complete_dense(dense: PathLike | dict[str, Any]) -> dict[str, Any]:
    """Complete what a user says of the dense branch: the file of a topology becomes numbers that a model can keep.

    Args:
        dense: path of a topology (see `Topology.load`); or dict with "topology", the path or a dict that
            `Topology.to_dict` made, and any of "vertices" (int: a subset, see `Topology.subset`), "embedding" and
            "width" (ints, see `VertexDecoder`). With "form": "mesh" any of "filters", "order" and "codes" (see
            `MeshDecoder`), "levels" and "factor" (see `build_hierarchy`). Or what this function returned.

    Returns:
        dict, JSON-ready: "topology" (numbers), "embedding" and the sizes, of a mesh also "form" and "hierarchy". Files
        and the library that simplifies meshes are not needed again.

    Raises:
        ValueError: for a name or value that can't be used.
        OSError: if the file can't be read.
        ImportError: naming the extra, without the library that simplifies meshes.
    """
    if not isinstance(dense, dict):
        dense = {"topology": dense}
    if dense.get("form") == "mesh":
        return _complete_mesh(dense)
    if dense.get("form", "vertices") != "vertices":
        raise ValueError(f"`dense.form` must be 'vertices' or 'mesh'. Received: {dense['form']!r}")
    dense = {name: value for name, value in dense.items() if name != "form"}
    known = ["topology", "vertices", *SIZES]
    if unknown := [name for name in dense if name not in known]:
        raise ValueError(f"`dense` has no field {unknown[0]!r}. Expected some of {known}")
    if "topology" not in dense:
        raise ValueError("`dense` needs a `topology`: path of an .obj, or of an archive with one")
    sizes = {name: dense.get(name, value) for name, value in SIZES.items()}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
            raise ValueError(f"`dense.{name}` must be a positive integer, at most {LARGEST_SIZE}. Received: {value!r}")
    source = dense["topology"]
    topology = Topology.from_dict(source) if isinstance(source, dict) else Topology.load(source)
    if dense.get("vertices") is not None:
        topology = topology.subset(dense["vertices"])
    return {"topology": topology.to_dict(), **sizes}


def _complete_mesh(dense: dict[str, Any]) -> dict[str, Any]:
    """As `complete_dense`, of the form "mesh"."""
    complete = "hierarchy" in dense
    known = ["form", "topology", *MESH_SIZES, *(["hierarchy", "embedding"] if complete else SIMPLIFICATION)]
    if unknown := [name for name in dense if name not in known]:
        raise ValueError(f"`dense` of form mesh has no field {unknown[0]!r}. Expected some of {known}")
    if "topology" not in dense:
        raise ValueError("`dense` needs a `topology`: path of an .obj, or of an archive with one")
    for name in (*MESH_SIZES, *SIMPLIFICATION):
        least, kinds = (1.5, (int, float)) if name == "factor" else (1, (int,))
        value = dense.get(name, 2)
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= LARGEST_SIZE:
            raise ValueError(
                f"`dense.{name}` must be a number of at least {least}, at most {LARGEST_SIZE}. Received: {value!r}"
            )
    sizes = {name: dense.get(name, value) for name, value in MESH_SIZES.items()}
    source = dense["topology"]
    topology = Topology.from_dict(source) if isinstance(source, dict) else Topology.load(source)
    if complete:
        hierarchy = dense["hierarchy"]
    else:
        simplification = {name: dense.get(name, value) for name, value in SIMPLIFICATION.items()}
        hierarchy = build_hierarchy(upright(topology.vertices), topology.triangles, **simplification).to_config()
    embedding = sizes["codes"] + CAMERA + LIGHT
    kept = {"form": "mesh", "topology": topology.to_dict(), "hierarchy": hierarchy}
    return {**kept, "embedding": embedding, **sizes}


def upright(vertices: np.ndarray) -> np.ndarray:
    """A face of size 1, the root of width times height, the middle of its extent at the origin: float32 `[V, 3]`."""
    low, high = np.min(vertices, axis=0), np.max(vertices, axis=0)
    return ((vertices - (low + high) / 2) / np.sqrt(np.prod((high - low)[:2]))).astype(np.float32)


def dense_heads(dense: dict[str, Any] | None) -> dict[str, tuple[int, ...]]:
    """Predictions that a branch wants of each anchor, from what `complete_dense` returns: dict kind -> shape."""
    return {} if dense is None else {"vertex": (dense["embedding"],)}


def build_dense(dense: dict[str, Any] | None) -> VertexDecoder | MeshBranch | None:
    """The layer of a dense branch from what `complete_dense` returns; `None` without one."""
    if dense is None:
        return None
    options = {name: value for name, value in dense.items() if name != "form"}
    branch: Any = (MeshBranch if dense.get("form") == "mesh" else VertexDecoder)(**options, name="vertex_decoder")
    branch.build((None, branch.embedding))
    return branch
