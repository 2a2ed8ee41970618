"""Losses of the dense branch: vertices against labels, and a rendered mesh against the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from retinaface_tf.dense.renderer import render, shading, vertex_normals
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks
from retinaface_tf.geometry.boxes import area

if TYPE_CHECKING:
    from retinaface_tf.geometry.anchor_target import LossContext


GOLDEN = 0.6180339887  # multiples of it, without their whole parts, are spread evenly: a choice without a die
TINY = 1e-6


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshLoss:
    """Loss of a `MeshBranch`: pixel-wise L1 between the rendered face and the photo (arXiv 1905.00641, section 3.2).

    Photo and rendering are compared where the rendering covers the crop around the labeled face. That alone would let
    a face slide off to wherever the photo is smooth, and grow light where it should grow a shape; so the five landmark
    vertices are to be where the landmark head sees them (which no gradient of this loss reaches: the landmarks are the
    teacher), and codes, displacements, colors and light are to be small.

    Args:
        weight: float; 0.01 in the paper.
        faces: int. Maximum number of anchors per image to render, spread over its faces.
        crop: int. The side of what is rendered, in pixels.
        smallest: float, pixels. Faces shorter than this are left out: they have no more pixels than parameters.
        landmark_weight: float, of the mean distance of the landmarks in hundredths of the face's size; the pixels' is
            in gray levels, 0 to 255.
        prior_weight: float, of the mean squares of codes, displacement, color and light.
        variances: pair of floats. See `box_coder`.
    """

    names = ("dense",)

    def __init__(
        self,
        weight: float = 0.01,
        faces: int = 8,
        crop: int = 40,
        smallest: float = 24.0,
        landmark_weight: float = 1.0,
        prior_weight: float = 1.0,
        variances: tuple[float, float] = (0.1, 0.2),
    ) -> None:
        if faces < 1 or crop < 8:
            raise ValueError(f"`faces` must be at least 1 and `crop` at least 8. Received: faces={faces}, crop={crop}")
        self.weight = weight
        self.faces = faces
        self.crop = crop
        self.smallest = smallest
        self.landmark_weight = landmark_weight
        self.prior_weight = prior_weight
        self.variances = tuple(variances)

    def __call__(self, context: LossContext) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """The loss of a batch, of a branch of form "mesh": dict of "dense": (sum over faces, weights to divide by)."""
        parts = self.parts(context)
        total = parts["pixel"] + self.landmark_weight * parts["landmark"] + self.prior_weight * parts["prior"]
        return {"dense": (self.weight * tf.reduce_sum(total), tf.ones_like(total))}

    def parts(self, context: LossContext) -> dict[str, tf.Tensor]:
        """The loss of each chosen anchor's face by what it is made of, not weighted.

        Returns:
            dict of float32 `[M]`: "pixel", "landmark", "prior", and "covered", the part of the crop where there is both
            rendering and photo.
        """
        images, targets, predictions = context.images, context.targets, context.predictions
        anchors, topology = context.anchors, context.topology
        anchors = tf.broadcast_to(anchors, tf.concat([tf.shape(images)[:1], tf.shape(anchors)[-2:]], axis=0))
        truth = decode_boxes(targets.boxes, anchors, self.variances)
        rows = self.choose(targets, truth, context.faces.get("image_weight"))
        own, truth = tf.gather_nd(anchors, rows), tf.gather_nd(truth, rows)
        landmarks = decode_landmarks(tf.gather_nd(predictions["landmark"], rows), own, self.variances)
        face = context.decoder.faces(tf.gather_nd(predictions["vertex"], rows), own)
        image, covered, photo = self.compare(topology, face, truth, images, rows[:, 0])
        size = tf.sqrt(tf.maximum(area(truth), 1.0))
        pixels = tf.reduce_sum(covered, axis=[1, 2])
        difference = tf.reduce_sum(covered * tf.reduce_mean(tf.abs(image - photo), axis=-1), axis=[1, 2])
        return {
            "pixel": difference / tf.maximum(pixels, 1.0),
            "landmark": _landmark_distance(topology, face, tf.stop_gradient(landmarks), size),
            "prior": _prior(context.decoder.decoder, face),
            "covered": pixels / self.crop**2,
        }

    def compare(self, topology, face, boxes, images, places):
        """Faces, as `MeshBranch.faces` returns them, as they are rendered and as the photo has them.

        Args:
            topology, face: `Topology` and dict of the faces.
            boxes: float32 `[M, 4]`, `xyxy` pixels, to be cut out.
            images: `[N, H, W, 3]`, 0 to 255.
            places: int32 `[M]`, whose image each face is in.

        Returns:
            (float32 `[M, crop, crop, 3]`, the rendering, 0 to 255; float32 `[M, crop, crop]`, 1 where there is both
            rendering and photo; float32 `[M, crop, crop, 3]`, the photo).
        """
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        points = (face["projected"][..., :2] - low) * self.crop / tf.maximum(high - low, TINY)
        light = shading(vertex_normals(face["posed"], topology.triangles), face["light"])
        colors = 255 * face["colors"] * light[..., None]
        image, covered = render(points, face["nearness"], colors, topology.triangles, self.crop, self.crop)
        photo, inside = cut_out(images, boxes, places, self.crop)
        return image, covered * inside, photo

    def choose(self, targets, truth, image_weights):
        """(image, anchor) of the faces to render: int32 `[M, 2]`."""
        sides = truth[..., 2:] - truth[..., :2]
        usable = (targets.box_weights > 0) & (tf.reduce_max(sides, axis=-1) >= self.smallest)
        if image_weights is not None:
            usable &= image_weights[:, None] > 0
        return _spread(usable, self.faces)

    def get_config(self):
        return {**vars(self), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _spread(usable, most):
    """(image, anchor) of a limited number of usable anchors per image, spread evenly: int32 `[M, 2]`."""
    number = tf.cast(tf.range(tf.shape(usable)[1]), tf.float32)
    order = tf.where(usable, 1 + number * GOLDEN % 1, 0.0)
    value, anchor = tf.math.top_k(order, tf.minimum(most, tf.shape(usable)[1]))
    chosen = tf.where(value > 0)
    return tf.stack([tf.cast(chosen[:, 0], tf.int32), tf.gather_nd(anchor, chosen)], axis=-1)


def cut_out(images, boxes, places, side):
    """Boxes `[M, 4]` (`xyxy` pixels) of images `[N, H, W, 3]`, brought to one size; `places` `[M]` says of which image.

    Returns:
        (float32 `[M, side, side, 3]`; float32 `[M, side, side]`, 0 where the box reaches out of the image).
    """
    # Twice as fine and then halved: without, large faces would be sampled at points between which they go unseen.
    size = tf.cast(tf.shape(images)[1:3], tf.float32)  # height, width
    low, high = tf.reverse(boxes[:, :2], [1]), tf.reverse(boxes[:, 2:], [1])
    step = (high - low) / (2 * side)
    # `crop_and_resize` counts from the first pixel's center to the last's.
    first, last = low + step / 2 - 0.5, high - step / 2 - 0.5
    normal = tf.concat([first, last], axis=-1) / tf.tile(tf.maximum(size - 1, 1.0), [2])
    floats = tf.cast(images, tf.float32)
    fine = tf.image.crop_and_resize(floats, normal, places, [2 * side] * 2, extrapolation_value=-1)
    inside = tf.cast(tf.reduce_min(fine, axis=-1, keepdims=True) >= 0, tf.float32)
    inside = -tf.nn.max_pool2d(-inside, 2, 2, "VALID")[..., 0]
    return tf.nn.avg_pool2d(fine, 2, 2, "VALID"), inside


def _landmark_distance(topology, face, landmarks, size):
    """Mean distance in hundredths of the face's size: float32 `[M]`; 0 if the mesh does not know its landmarks."""
    if topology.landmarks is None:
        return tf.zeros_like(size)
    own = tf.einsum("lv,mvc->mlc", tf.constant(topology.landmark_matrix), face["projected"][..., :2])
    distances = tf.sqrt(tf.reduce_sum((own - landmarks) ** 2, axis=-1) + TINY)
    return 100 * tf.reduce_mean(distances, axis=-1) / size


def _prior(decoder, face):
    """Squares that keep a face near the mean one, in gray levels for a typical deviation: float32 `[M]`."""
    moved = tf.reduce_mean(tf.reduce_sum((face["shape"] - decoder.mean) ** 2, axis=-1), axis=-1)
    color = tf.reduce_mean((face["colors"] - decoder.skin) ** 2, axis=[1, 2])
    light = tf.reduce_mean(face["light"] ** 2, axis=-1)
    turn = tf.reduce_mean(face["camera"][:, :3] ** 2 + face["camera"][:, 6:] ** 2, axis=-1)  # of radians
    codes = tf.reduce_mean(face["codes"] ** 2, axis=-1)
    return 1000 * moved + 30 * color + 3 * light + turn + codes


SMALLEST_LENGTH = 1e-8


@keras.saving.register_keras_serializable("retinaface_tf")
class VertexLoss:
    """Loss of a dense branch (RetinaFace, CVPR 2020).

    All distances are in `variances[0]` anchor sides, as the landmarks' offsets are:

    - "vertex": L1 between predicted and labeled vertices, the mean over vertices of the sum over x, y and z.
    - "edge": the mean difference of the lengths of the mesh's edges, predicted and labeled: it keeps the mesh smooth.
    - "consistency": L1 between the landmarks that the predicted vertices imply and labeled landmarks, the mean over
      landmarks of the sum over x and y. Faces without vertex labels learn from it too.

    Each is the mean over the anchors that have such labels, over all replicas.

    Args:
        weight: float; of all three, 0.01 in the paper.
        edge_weight, consistency_weight: floats, of those two against the vertices'.
        anchors_an_image: int. Maximum number of anchors per image to decode, spread over those with a face.
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

        The faces of the `LossContext` have "vertices" float32 `[N, F, V, 3]` and "vertices_labeled" int32 `[N, F]`.

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
        sides = tf.maximum(own[:, 2:] - own[:, :2], SMALLEST_LENGTH)
        unit = tf.concat([sides, tf.sqrt(sides[:, :1] * sides[:, 1:])], axis=-1)[:, None] * self.variances[0]
        truth = tf.gather_nd(faces["vertices"], face_rows)
        labeled = tf.cast(tf.gather_nd(faces["vertices_labeled"], face_rows), tf.float32)
        distance = tf.reduce_mean(tf.reduce_sum(tf.abs(found - truth) / unit, axis=-1), axis=-1)
        stretch = _edge_difference(found / unit, truth / unit, topology.edges)
        implied, weights = distance * 0, labeled * 0
        if topology.landmarks is not None:
            implied, weights = self._consistency(topology, found / unit, targets, rows, faces, face_rows, unit)
        parts = {
            "vertex": (distance, labeled, 1.0),
            "edge": (stretch, labeled, self.edge_weight),
            "consistency": (implied, weights, self.consistency_weight),
        }
        scale = tf.constant(self.weight, tf.float32)
        return {
            name: (scale * factor * tf.reduce_sum(value * weight), weight)
            for name, (value, weight, factor) in parts.items()
        }

    def _choose(self, targets, faces):
        """Which anchors learn: int32 `[M, 2]` (image, anchor), and int32 `[M, 2]` (image, face)."""
        with_vertices = tf.gather(faces["vertices_labeled"] > 0, tf.maximum(targets.match, 0), batch_dims=1)
        usable = (targets.box_weights > 0) & (with_vertices | (tf.reduce_max(targets.landmark_weights, axis=-1) > 0))
        if "image_weight" in faces:
            usable &= faces["image_weight"][:, None] > 0
        rows = _spread(usable, self.anchors_an_image)
        return rows, tf.stack([rows[:, 0], tf.gather_nd(targets.match, rows)], axis=-1)

    def _consistency(self, topology, found, targets, rows, faces, face_rows, unit):
        """Distance of the implied landmarks from labeled ones, and 1 where there are any: float32 `[M]` twice."""
        weights = tf.gather_nd(targets.landmark_weights, rows)
        implied = tf.einsum("lv,mvc->mlc", tf.constant(topology.landmark_matrix), found[..., :2])
        truth = tf.gather_nd(faces["landmarks"], face_rows) / unit[..., :2]
        total = tf.reduce_sum(weights, axis=-1)
        distance = tf.reduce_sum(weights * tf.reduce_sum(tf.abs(implied - truth), axis=-1), axis=-1)
        return distance / tf.maximum(total, SMALLEST_LENGTH), tf.cast(total > 0, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _edge_difference(found, truth, edges):
    """Mean over edges of how much their lengths differ: float32 `[M]`."""

    def lengths(vertices):
        ends = tf.gather(vertices, edges, axis=1)  # [M, E, 2, 3]
        return tf.sqrt(tf.reduce_sum((ends[:, :, 0] - ends[:, :, 1]) ** 2, axis=-1) + SMALLEST_LENGTH)

    return tf.reduce_mean(tf.abs(lengths(found) - lengths(truth)), axis=-1)
