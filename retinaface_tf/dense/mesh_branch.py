"""Mesh branch: an embedding at an anchor becomes a colored face in three dimensions, as in arXiv 1905.00641."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from retinaface_tf.dense.mesh_decoder import MeshDecoder
from retinaface_tf.dense.renderer import CAMERA, LIGHT, pose, project
from retinaface_tf.dense.topology import Topology

STEP = 0.1  # what a prediction of 1 means, as the landmarks' variance: in anchor sides, radians, and so on

# The branch in ONNX, converted by tf2onnx, stands between these two: its inputs, and the shape of its outputs.
ONNX_OUTPUTS = """,
  float[R, E] final_embedding, float[R, 4] final_own, bool[N, J, 1, 1] final_there,
  int64[4] final_shape, int64[8] final_pads"""
ONNX_NODES = """final_embedding = Gather (embedding, final)
  final_reach = Mul (final_sides, half)
  final_low = Sub (final_center, final_reach)
  final_high = Add (final_center, final_reach)
  final_own = Concat <axis = 1> (final_low, final_high)
  one_face = Constant <value = int64[2] {{V}, 3}> ()
  final_shape = Concat <axis = 0> (images_1, enough_1, one_face)
  final_there = Identity (there_4)
  final_pads = Identity (pad_4)"""
ONNX_AFTER = """after (
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


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshBranch(keras.layers.Layer):
    """Shape, texture, camera and light of single faces (arXiv 1905.00641, sections 3.2 and 3.3).

    Like `VertexDecoder` it reads an embedding that the heads give for every anchor, and works only where a face is
    wanted: at the anchors that learn and at the detections that are kept. The embedding is `codes` parameters of shape
    and texture, then 7 of the camera (see `project`; shifts and size are in relation to the anchor) and 9 of the light
    (see `shading`), all in steps of `STEP`: zeros are the mean face, upright, as large as the anchor, in even light.

    Args:
        topology: dict, `Topology.to_dict`.
        hierarchy: dict, a `MeshHierarchy` of it as `to_config` writes it; see `complete_mesh`.
        embedding: int, `codes + 16`.
        filters, order, codes: see `MeshDecoder`.

    Input: embeddings `[M, embedding]` and anchors `[M, 4]`, `xyxy` pixels; M may be 0. Output: float32 `[M, V, 3]`,
    x and y in pixels, z in pixels away from the camera, about 0 in the middle of the face.
    """

    needs_labels = False

    def __init__(
        self,
        topology: dict[str, Any],
        hierarchy: dict[str, Any],
        embedding: int = 144,
        filters: int = 16,
        order: int = 3,
        codes: int = 128,
        **kwargs: Any,
    ) -> None:
        if embedding != codes + CAMERA + LIGHT:
            raise ValueError(f"`embedding` must be codes + {CAMERA + LIGHT}. Received: {embedding=}, {codes=}")
        # Pixels stay float32 under every policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.topology = topology
        self.mesh = Topology.from_dict(topology)
        self.hierarchy = hierarchy
        self.embedding = embedding
        self.filters = filters
        self.order = order
        self.codes = codes
        self.decoder = MeshDecoder(hierarchy, filters, order, codes, name="decoder", dtype="float32")

    def build(self, embedding_shape, anchors_shape=None):
        self.decoder.build((None, self.codes))

    def faces(self, embedding, anchors):
        """Everything that a renderer needs about faces.

        Args:
            embedding: float tensor `[M, embedding]`.
            anchors: float32 `[M, 4]`, `xyxy` pixels.

        Returns:
            dict of float32 tensors: "codes" `[M, codes]`, "camera" `[M, 7]` and "light" `[M, 9]`; "shape" `[M, V, 3]`,
            the face at rest; "colors" `[M, V, 3]`, RGB in (0, 1), without light; "posed" `[M, V, 3]`, turned;
            "projected" `[M, V, 3]` and "nearness" `[M, V]`, in the image: see `project`.
        """
        values = STEP * keras.ops.cast(embedding, "float32")
        codes, camera, light = keras.ops.split(values, [self.codes, self.codes + CAMERA], axis=-1)
        shape, colors = self.decoder(codes)
        posed = pose(shape, camera)
        projected, nearness = project(posed, camera, anchors)
        return {
            **{"codes": codes, "camera": camera, "light": light, "shape": shape, "colors": colors},
            **{"posed": posed, "projected": projected, "nearness": nearness},
        }

    def call(self, embedding, anchors):
        return self.faces(embedding, anchors)["projected"]

    def compute_output_spec(self, embedding, anchors):
        return keras.KerasTensor((embedding.shape[0], len(self.decoder.mean), 3), "float32")

    def onnx_texts(self) -> tuple[str, str, str]:
        """Inputs, outputs and nodes that the branch adds to an ONNX graph of the detections."""
        return "", ONNX_OUTPUTS, ONNX_NODES.replace("{V}", str(len(self.decoder.mean)))

    def onnx_weights(self) -> dict[str, np.ndarray]:
        """Values of those inputs that are weights: none."""
        return {}

    def onnx_append(self, graph: Any, parse: Callable[[str], Any], convert: Callable[..., Any]) -> Any:
        """Append the branch to `graph`, the ONNX model of the detections.

        `parse` makes a model of ONNX text without header, `convert` one of a `tf.function` with a signature.
        """
        from onnx import compose

        signature = [
            tf.TensorSpec([None, self.embedding], tf.float32, name=TO_MESH[0]),
            tf.TensorSpec([None, 4], tf.float32, name=TO_MESH[1]),
        ]

        @tf.function(input_signature=signature, autograph=False)
        def faces(final_embedding, final_own):
            return {FROM_MESH[0]: self(final_embedding, final_own)}

        after = parse(ONNX_AFTER.replace("{V}", str(len(self.decoder.mean))))
        for name, part, wanted in (("mesh", convert(faces), TO_MESH), ("after", after, FROM_MESH)):
            compose.add_prefix(part, f"{name}/", rename_inputs=False, rename_outputs=False, inplace=True)
            graph = compose.merge_models(graph, part, io_map=[(one, one) for one in wanted], name="retinaface")
        return graph

    def get_config(self):
        return {
            **super().get_config(),
            "topology": self.topology,
            "hierarchy": self.hierarchy,
            "embedding": self.embedding,
            "filters": self.filters,
            "order": self.order,
            "codes": self.codes,
        }


def begin_in_boxes(
    codes: int,
    embedding: int,
    variances: tuple[float, float],
    sizes_of_levels: Mapping[str, Sequence[float]],
    get_layer: Callable[[str], Any],
) -> None:
    """Initialize the branch so that its faces start at the boxes of a trained network.

    The heads are linear, so that their kernels can be copied: shift and size of the camera become those of the box.
    Turn, distance and light begin at zero. `codes` and `embedding` are the branch's numbers of parameters, of shape and
    texture and of all; `get_layer` takes a name such as `box_head_p3`.
    """
    move, grow = variances
    first = codes
    for level, sizes in sizes_of_levels.items():
        box, vertex = (get_layer(f"{kind}_head_{level}").convolution for kind in ("box", "vertex"))
        for name in ("kernel", "bias"):
            theirs, ours = (getattr(layer, name).numpy() for layer in (box, vertex))
            offsets = theirs.reshape(*theirs.shape[:-1], len(sizes), 4)
            values = ours.reshape(*ours.shape[:-1], len(sizes), embedding)
            values[..., first:] = 0
            values[..., first + 3 : first + 5] = move / STEP * offsets[..., :2]
            values[..., first + 5] = grow / STEP * offsets[..., 2:].mean(axis=-1)
            getattr(vertex, name).assign(values.reshape(ours.shape))
