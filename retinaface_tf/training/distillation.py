"""Distillation: learn the predictions of a teacher where there are no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf
from keras import ops

from retinaface_tf.geometry.box_coder import decode_boxes
from retinaface_tf.training.losses import paired_iou, smooth_l1

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.geometry.anchor_target import Targets

SEES = 0.5


class Distillation:
    """Use the predictions of a teacher where there are no labels (after Li and Hoiem, arXiv 1606.09282).

    - Background, by the labels: the face probability is to stay the teacher's (Kullback-Leibler divergence). Faces that
      nobody labeled are thus not unlearned. Where the teacher is sure of a face, the labels' loss is left out.
    - Where the teacher sees a face (probability above `SEES`), boxes and landmarks that are not labeled are to stay
      its own (smooth L1 on offsets). With `keep_boxes` it also keeps its box where that overlaps the labeled one so
      much: sets of photos differ in what they draw around a face, and the new set's habit would spread to all faces.

    Args:
        teacher: `RetinaFace` with the anchors of the model that learns. It is not trained.
        weight: float, of the sum below against the labels' losses.
        ignore_score: float in (0, 1]. From this probability on, faces of the teacher are not background to the labels.
        keep_boxes: float in (0, 1], an IoU; or `None` to learn all labeled boxes.
        landmark_weight: float, of the teacher's landmarks against its other predictions.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "distillation"

    def __init__(
        self,
        teacher: RetinaFace,
        weight: float = 1.0,
        ignore_score: float = 0.5,
        keep_boxes: float | None = None,
        landmark_weight: float = 1.0,
    ) -> None:
        if weight <= 0:
            raise ValueError(f"`weight` must be above 0. Received: weight={weight}")
        if not 0 < ignore_score <= 1:
            raise ValueError(f"`ignore_score` must be in (0, 1]. Received: ignore_score={ignore_score}")
        if keep_boxes is not None and not 0 < keep_boxes <= 1:
            raise ValueError(f"`keep_boxes` must be None or in (0, 1]. Received: keep_boxes={keep_boxes}")
        if landmark_weight < 0:
            raise ValueError(f"`landmark_weight` must be at least 0. Received: landmark_weight={landmark_weight}")
        self.teacher = teacher if teacher.folded else teacher.fold()
        self.teacher.trainable = False
        self.weight = weight
        self.ignore_score = ignore_score
        self.keep_boxes = keep_boxes
        self.landmark_weight = landmark_weight

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The teacher's predictions of a batch, without gradient: dict as `RetinaFace` returns it."""
        return {name: tf.stop_gradient(value) for name, value in self.teacher(images, training=False).items()}

    def mask_targets(self, targets: Targets, teacher_predictions: dict[str, tf.Tensor], anchors: tf.Tensor) -> Targets:
        """`Targets` in which anchors on the teacher's unlabeled faces are ignored rather than background.

        With `keep_boxes`, labeled boxes that the teacher knows about as they are have no weight. `anchors` are float32
        `[A, 4]`, `xyxy` pixels.
        """
        score = _score(teacher_predictions)
        unlabeled = (targets.faces == 0) & (score >= self.ignore_score)
        targets = targets._replace(face_weights=tf.where(unlabeled, 0.0, targets.face_weights))
        if self.keep_boxes is not None:
            offsets = (teacher_predictions["box"], targets.boxes)
            boxes = [decode_boxes(part, anchors, self.teacher.variances) for part in offsets]
            known = (score > SEES) & (paired_iou(*boxes) >= self.keep_boxes)
            targets = targets._replace(box_weights=tf.where(known, 0.0, targets.box_weights))
        return targets

    def loss(
        self,
        targets: Targets,
        teacher_predictions: dict[str, tf.Tensor],
        predictions: dict[str, tf.Tensor],
        image_weights: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Divergence from the teacher: (float32 scalar, a sum over anchors; float32 `[N, A]`, 1 where the teacher sees
        a face). It is to be divided by their number, see `objective.global_means`.

        `targets` are those of the labels, after `mask_targets`; `image_weights` is float32 `[N]`, or `None` for 1.
        """
        score = _score(teacher_predictions)
        counted = tf.ones_like(score) if image_weights is None else tf.ones_like(score) * image_weights[:, None]
        sees = tf.cast(score > SEES, tf.float32) * counted
        theirs, ours = (p["face"][..., 1] - p["face"][..., 0] for p in (teacher_predictions, predictions))
        # Of two Bernoulli distributions by their logits; both softplus terms stay finite at any logit.
        divergence = score * (ops.softplus(-ours) - ops.softplus(-theirs)) + (1 - score) * (
            ops.softplus(ours) - ops.softplus(theirs)
        )
        total = tf.reduce_sum((1 - targets.faces) * counted * divergence)
        total += smooth_l1(
            predictions["box"], teacher_predictions["box"], sees * tf.cast(targets.box_weights == 0, tf.float32)
        )
        unlabeled = tf.cast(targets.landmark_weights == 0, tf.float32)
        landmarks = smooth_l1(predictions["landmark"], teacher_predictions["landmark"], sees[..., None] * unlabeled)
        total += self.landmark_weight * landmarks
        return self.weight * total, sees


def _score(teacher_predictions):
    return ops.sigmoid(teacher_predictions["face"][..., 1] - teacher_predictions["face"][..., 0])
