"""What predicted vertices cost: their distance, the lengths of the mesh's edges, and the landmarks that they imply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from retinaface_tf.geometry.anchor_target import LossContext


GOLDEN = 0.6180339887  # multiples of it, without their whole parts, are spread evenly: a choice without a die
TINY = 1e-8


@keras.saving.register_keras_serializable("retinaface_tf")
class VertexLoss:
    """Loss of a dense branch (RetinaFace, CVPR 2020).

    All distances are in `variances[0]` anchor sides, as the landmarks' offsets are:

    - "vertex": L1 between predicted and labelled vertices, the mean over vertices of the sum over x, y and z.
    - "edge": the mean difference of the lengths of the mesh's edges, predicted and labelled: it keeps the mesh smooth.
    - "consistency": L1 between the landmarks that the predicted vertices imply and labelled landmarks, the mean over
      landmarks of the sum over x and y. Faces without vertex labels learn from it too.

    Each is the mean over the anchors that have such labels, over all replicas.

    Args:
        weight: float; of all three, 0.01 in the paper.
        edge_weight, consistency_weight: floats, of those two against the vertices'.
        anchors_an_image: int. At most so many anchors of an image are decoded, spread over those with a face.
        variances: pair of floats. See `box_coder`.
    """

    names = ("vertex", "edge", "consistency")

    def __init__(
        self,
        weight: float = 0.01,
        edge_weight: float = 1.0,
        consistency_weight: float = 1.0,
        anchors_an_image: int = 32,
        variances: tuple[float, float] = (0.1, 0.2),
    ) -> None:
        self.weight = weight
        self.edge_weight = edge_weight
        self.consistency_weight = consistency_weight
        self.anchors_an_image = anchors_an_image
        self.variances = tuple(variances)

    def __call__(self, context: LossContext) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """The losses of a batch.

        Args:
            context: `LossContext`, whose faces have "vertices" float32 `[N, F, V, 3]` and "vertices_labelled" int32
                `[N, F]`.

        Returns:
            dict of "vertex", "edge" and "consistency": (float32 scalar, a sum over anchors; float32 weights, whose
            number above 0 it is to be divided by).
        """
        faces, targets, topology = context.faces, context.targets, context.topology
        if "vertices" not in faces:
            raise ValueError("a dense branch learns from faces with `vertices`: see `retinaface-tf label3d`")
        rows, face_rows = self._choose(targets, faces)
        shape = tf.concat([tf.shape(targets.match), [4]], axis=0)
        own = tf.gather_nd(tf.broadcast_to(context.anchors, shape), rows)
        found = context.decoder(tf.gather_nd(context.predictions["vertex"], rows), own)
        sides = tf.maximum(own[:, 2:] - own[:, :2], TINY)
        unit = tf.concat([sides, tf.sqrt(sides[:, :1] * sides[:, 1:])], axis=-1)[:, None] * self.variances[0]
        truth = tf.gather_nd(faces["vertices"], face_rows)
        labelled = tf.cast(tf.gather_nd(faces["vertices_labelled"], face_rows), tf.float32)
        distance = tf.reduce_mean(tf.reduce_sum(tf.abs(found - truth) / unit, axis=-1), axis=-1)
        stretch = _edge_difference(found / unit, truth / unit, topology.edges)
        implied, weights = distance * 0, labelled * 0
        if topology.landmarks is not None:
            implied, weights = self._consistency(topology, found / unit, targets, rows, faces, face_rows, unit)
        parts = {
            "vertex": (distance, labelled, 1.0),
            "edge": (stretch, labelled, self.edge_weight),
            "consistency": (implied, weights, self.consistency_weight),
        }
        scale = tf.constant(self.weight, tf.float32)
        return {
            name: (scale * factor * tf.reduce_sum(value * weight), weight)
            for name, (value, weight, factor) in parts.items()
        }

    def _choose(self, targets, faces):
        """Which anchors learn: int32 `[M, 2]` (image, anchor), and int32 `[M, 2]` (image, face)."""
        with_vertices = tf.gather(faces["vertices_labelled"] > 0, tf.maximum(targets.match, 0), batch_dims=1)
        usable = (targets.box_weights > 0) & (with_vertices | (tf.reduce_max(targets.landmark_weights, axis=-1) > 0))
        if "image_weight" in faces:
            usable &= faces["image_weight"][:, None] > 0
        number = tf.cast(tf.range(tf.shape(usable)[1]), tf.float32)
        order = tf.where(usable, 1 + number * GOLDEN % 1, 0.0)
        value, anchor = tf.math.top_k(order, tf.minimum(self.anchors_an_image, tf.shape(usable)[1]))
        chosen = tf.where(value > 0)
        image = tf.cast(chosen[:, 0], tf.int32)
        rows = tf.stack([image, tf.gather_nd(anchor, chosen)], axis=-1)
        return rows, tf.stack([image, tf.gather_nd(targets.match, rows)], axis=-1)

    def _consistency(self, topology, found, targets, rows, faces, face_rows, unit):
        """Distance of the implied landmarks from labelled ones, and 1 where there are any: float32 `[M]` twice."""
        weights = tf.gather_nd(targets.landmark_weights, rows)
        implied = tf.einsum("lv,mvc->mlc", tf.constant(topology.landmark_matrix), found[..., :2])
        truth = tf.gather_nd(faces["landmarks"], face_rows) / unit[..., :2]
        total = tf.reduce_sum(weights, axis=-1)
        distance = tf.reduce_sum(weights * tf.reduce_sum(tf.abs(implied - truth), axis=-1), axis=-1)
        return distance / tf.maximum(total, TINY), tf.cast(total > 0, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _edge_difference(found, truth, edges):
    """Mean over edges of how much their lengths differ: float32 `[M]`."""

    def lengths(vertices):
        ends = tf.gather(vertices, edges, axis=1)  # [M, E, 2, 3]
        return tf.sqrt(tf.reduce_sum((ends[:, :, 0] - ends[:, :, 1]) ** 2, axis=-1) + TINY)

    return tf.reduce_mean(tf.abs(lengths(found) - lengths(truth)), axis=-1)
