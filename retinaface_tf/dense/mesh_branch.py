"""Mesh branch: an embedding at an anchor becomes a colored face in three dimensions, as in arXiv 1905.00641."""

from __future__ import annotations

from typing import Any

import keras

from retinaface_tf.dense.camera import CAMERA, pose, project
from retinaface_tf.dense.lighting import LIGHT
from retinaface_tf.dense.mesh_decoder import MeshDecoder
from retinaface_tf.dense.topology import Topology

STEP = 0.1  # what a prediction of 1 means, as the landmarks' variance: in anchor sides, radians, and so on


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

    @property
    def heads(self) -> dict[str, tuple[int, ...]]:
        """Predictions that the branch wants of each anchor: dict kind -> shape."""
        return {"vertex": (self.embedding,)}

    def build(self, embedding_shape, anchors_shape=None):
        self.decoder.build((None, self.codes))

    def faces(self, embedding, anchors):
        """All that a renderer wants to know of faces.

        Args:
            embedding: float tensor `[M, embedding]`.
            anchors: float32 `[M, 4]`, `xyxy` pixels.

        Returns:
            dict of float32 tensors: "codes" `[M, codes]`, "camera" `[M, 7]` and "light" `[M, 9]`; "shape" `[M, V, 3]`,
            the face at rest; "colours" `[M, V, 3]`, RGB in (0, 1), without light; "posed" `[M, V, 3]`, turned;
            "projected" `[M, V, 3]` and "nearness" `[M, V]`, in the image: see `project`.
        """
        values = STEP * keras.ops.cast(embedding, "float32")
        codes, camera, light = keras.ops.split(values, [self.codes, self.codes + CAMERA], axis=-1)
        shape, colours = self.decoder(codes)
        posed = pose(shape, camera)
        projected, nearness = project(posed, camera, anchors)
        return {
            **{"codes": codes, "camera": camera, "light": light, "shape": shape, "colours": colours},
            **{"posed": posed, "projected": projected, "nearness": nearness},
        }

    def call(self, embedding, anchors):
        return self.faces(embedding, anchors)["projected"]

    def compute_output_spec(self, embedding, anchors):
        return keras.KerasTensor((embedding.shape[0], len(self.decoder.mean), 3), "float32")

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


def begin_in_boxes(model: Any) -> None:
    """Let the faces of a fresh branch stand where the box heads of a trained `RetinaFace` see them.

    The heads are linear, so that their kernels can be copied: shift and size of the camera become those of the box.
    Turn, distance and light begin at zero.
    """
    branch, (move, grow) = model.vertex_decoder, model.variances
    first = branch.codes
    for level, sizes in model.anchor_generator.sizes.items():
        box, vertex = (model.get_layer(f"{kind}_head_{level}").convolution for kind in ("box", "vertex"))
        for name in ("kernel", "bias"):
            theirs, ours = (getattr(layer, name).numpy() for layer in (box, vertex))
            offsets = theirs.reshape(*theirs.shape[:-1], len(sizes), 4)
            values = ours.reshape(*ours.shape[:-1], len(sizes), branch.embedding)
            values[..., first:] = 0
            values[..., first + 3 : first + 5] = move / STEP * offsets[..., :2]
            values[..., first + 5] = grow / STEP * offsets[..., 2:].mean(axis=-1)
            getattr(vertex, name).assign(values.reshape(ours.shape))
