"""What a batch of predictions costs: the losses by name, weighted and averaged over the global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from retinaface_tf.geometry.box_coder import decode_boxes
from retinaface_tf.training.losses import (
    diou_loss,
    focal_loss,
    giou_loss,
    mined_cross_entropy,
    paired_iou,
    quality_focal_loss,
    smooth_l1,
)

if TYPE_CHECKING:
    from retinaface_tf.geometry.anchor_target import Targets


FACE_LOSSES = ("mined_cross_entropy", "focal", "quality_focal")
BOX_LOSSES = ("smooth_l1", "diou", "giou")


@keras.saving.register_keras_serializable("retinaface_tf")
class DetectionLoss:
    """Face, box and landmark loss of predictions against `Targets`.

    The defaults are the loss of biubug6/Pytorch_Retinaface: sums over anchors; the face and box sums divided by
    the positives of the whole batch (all replicas together), the landmark sum by the positives with landmarks; boxes
    count twice.

    Args:
        face: "mined_cross_entropy", "focal" or "quality_focal".
        box: "smooth_l1" on offsets, or "diou" or "giou" on decoded boxes.
        face_weight, box_weight, landmark_weight: floats.
        negatives_per_positive, negatives_without_faces: ints, see `mined_cross_entropy`.
        landmark_by_face_size: bool. Measure landmark errors in parts of the face's size instead of the anchor's: large
            faces on small anchors then weigh no more than others.
        variances: pair of floats. See `box_coder`.
    """

    def __init__(
        self,
        face: str = "mined_cross_entropy",
        box: str = "smooth_l1",
        face_weight: float = 1.0,
        box_weight: float = 2.0,
        landmark_weight: float = 1.0,
        negatives_per_positive: int = 7,
        negatives_without_faces: int = 0,
        landmark_by_face_size: bool = False,
        variances: tuple[float, float] = (0.1, 0.2),
    ) -> None:
        for name, value, known in (("face", face, FACE_LOSSES), ("box", box, BOX_LOSSES)):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {list(known)}. Received: {name}={value!r}")
        self.face = face
        self.box = box
        self.face_weight = face_weight
        self.box_weight = box_weight
        self.landmark_weight = landmark_weight
        self.negatives_per_positive = negatives_per_positive
        self.negatives_without_faces = negatives_without_faces
        self.landmark_by_face_size = landmark_by_face_size
        self.variances = tuple(variances)

    def __call__(
        self,
        targets: Targets,
        predictions: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        image_weights: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The losses of a batch.

        Args:
            targets: `Targets`.
            predictions: dict as `RetinaFace` returns it; "landmark" may be missing.
            anchors: float32 `[A, 4]` or `[N, A, 4]`, `xyxy` pixels.
            image_weights: float32 `[N]` or `None` for 1: an image of weight 0 counts for nothing.

        Returns:
            dict of float32 scalars "face", "box" and, if it is predicted, "landmark". On a replica each is its own part
            of the global value times the number of replicas, so that the mean over replicas, as Keras takes it, is the
            global value.
        """
        if image_weights is not None:
            scale = image_weights[:, None]
            targets = targets._replace(
                face_weights=targets.face_weights * scale,
                box_weights=targets.box_weights * scale,
                landmark_weights=targets.landmark_weights * scale[..., None],
            )
        decoded = truth = None
        if self.box != "smooth_l1" or self.face == "quality_focal":
            decoded = decode_boxes(predictions["box"], anchors, self.variances)
            truth = decode_boxes(targets.boxes, anchors, self.variances)
        positives = global_count(targets.box_weights)
        replicas = tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, tf.float32)
        sums = {
            "face": self.face_weight * self._face(targets, predictions, decoded, truth) / positives,
            "box": self.box_weight * self._box(targets, predictions, decoded, truth) / positives,
        }
        if "landmark" in predictions:
            with_landmarks = global_count(tf.reduce_max(targets.landmark_weights, axis=-1))
            sums["landmark"] = self.landmark_weight * self._landmark(targets, predictions) / with_landmarks
        return {name: replicas * value for name, value in sums.items()}

    def _face(self, targets, predictions, decoded, truth):
        logits, weights = predictions["face"], targets.face_weights
        if self.face == "mined_cross_entropy":
            return mined_cross_entropy(
                logits, targets.faces, weights, self.negatives_per_positive, self.negatives_without_faces
            )
        if self.face == "focal":
            return focal_loss(logits, targets.faces, weights)
        return quality_focal_loss(logits, targets.faces * paired_iou(decoded, truth), weights)

    def _box(self, targets, predictions, decoded, truth):
        if self.box == "smooth_l1":
            return smooth_l1(predictions["box"], targets.boxes, targets.box_weights)
        return (diou_loss if self.box == "diou" else giou_loss)(decoded, truth, targets.box_weights)

    def _landmark(self, targets, predictions):
        values, truth = predictions["landmark"], targets.landmarks
        if self.landmark_by_face_size:
            # Offsets are in anchor sides; the box target holds log(face side / anchor side) for width and height.
            log_size = tf.reduce_mean(targets.boxes[..., 2:], axis=-1) * self.variances[1]
            scale = tf.exp(-log_size)[..., None, None]
            values, truth = values * scale, truth * scale
        return smooth_l1(values, truth, targets.landmark_weights)

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DetectionLoss:
        return cls(**config)


def global_count(weights: tf.Tensor) -> tf.Tensor:
    """How many weights are not 0, over all replicas; at least 1: float32 scalar without gradient."""
    count = tf.reduce_sum(tf.cast(weights > 0, tf.float32))
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return tf.stop_gradient(tf.maximum(count, 1.0))
