"""The training objective: targets, losses, distillation, cascade and dense loss in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from keras import ops

from retinaface_tf.geometry.anchor_target import AnchorTarget, LossContext
from retinaface_tf.geometry.box_coder import decode_boxes
from retinaface_tf.training.losses import DetectionLoss

if TYPE_CHECKING:
    from retinaface_tf.training.distillation import Distillation


class Objective:
    """Targets and losses of a `RetinaFace`: `model.compile(optimizer, loss=Objective())`.

    The losses below return sums over anchors with the weights to divide by; the average over all replicas is taken
    here, in `global_means`, and nowhere else.

    Args:
        loss: `DetectionLoss`, of every stage.
        target: `AnchorTarget`.
        first_target: `AnchorTarget` of the first heads of a cascade, whose boxes are the anchors of the others.
        distillation: `Distillation`, or `None` to learn from labels alone.
        dense_loss: function of a `LossContext` with the attribute `names`, such as `dense.vertex_loss.VertexLoss`; for
            a model with a dense branch, and needed there.
    """

    def __init__(
        self,
        loss: DetectionLoss | None = None,
        target: AnchorTarget | None = None,
        *,
        first_target: Any = None,
        distillation: Distillation | None = None,
        dense_loss: Any = None,
    ) -> None:
        self.loss = DetectionLoss() if loss is None else loss
        self.target = AnchorTarget() if target is None else target
        self.first_target = first_target
        self.distillation = distillation
        self.dense_loss = dense_loss

    def require_fit(self, cascade: bool, dense: bool, variances: Sequence[float]) -> None:
        """Raise ValueError unless this objective fits a model with these arguments."""
        for name, given, part, what in (
            ("first_target", self.first_target, cascade, "cascade"),
            ("dense_loss", self.dense_loss, dense, "dense branch"),
        ):
            if part != (given is not None):
                state = f"a model with{'' if part else 'out'} one, and {name}={given}"
                raise ValueError(f"`{name}` must be given for a model with a {what}, and only then. Received: {state}")
        for name, part in (("loss", self.loss), ("target", self.target), ("first_target", self.first_target)):
            if part is not None and tuple(part.variances) != tuple(variances):
                raise ValueError(
                    f"`{name}` must have the variances of the model, {tuple(variances)}. "
                    f"Received: {tuple(part.variances)}"
                )

    def names(self, stages: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        """Names of the losses of a model with these `RetinaFace.stages`."""
        names = [prefix + kind for prefix, heads in stages.items() for kind in heads if kind != "vertex"]
        names += self.dense_loss.names if self.dense_loss else []
        return (*names, self.distillation.name) if self.distillation else tuple(names)

    def __call__(
        self,
        images: tf.Tensor,
        faces: dict[str, tf.Tensor],
        predictions: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        level_counts: Sequence[Any],
        stages: Mapping[str, Mapping[str, Any]],
        decoder: Any = None,
        topology: Any = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The losses of a batch.

        Args:
            images: tensor `[N, H, W, 3]`.
            faces: dict, see `RetinaFace.compile`.
            predictions: dict as `RetinaFace` returns it.
            anchors: float32 `[A, 4]`, `xyxy` pixels.
            level_counts: list of int, anchors of each level.
            stages: as in `names`.
            decoder, topology: of a dense branch, see `LossContext`.

        Returns:
            (float32 scalar, the part of this replica: their sum over all replicas is the global loss; dict of float32
            scalars to log, whose mean over all replicas is the global value).
        """
        weights = faces.get("image_weight")
        sums = {}
        *firsts, _ = stages.items()
        for prefix, heads in firsts:
            own = {kind: predictions[prefix + kind] for kind in heads}
            targets = self.first_target(faces, anchors, level_counts=level_counts)
            found = self.loss(targets, own, anchors, weights)
            sums |= {prefix + kind: value for kind, value in found.items()}
            # From here on the boxes are given: how to move them the first heads learn from their own losses.
            anchors = ops.stop_gradient(decode_boxes(own["box"], anchors, self.loss.variances))
        targets = self.target(faces, anchors, level_counts=level_counts)
        if self.distillation:
            taught = self.distillation.predict(images)
            targets = self.distillation.mask_targets(targets, taught, anchors)
            sums[self.distillation.name] = self.distillation.loss(targets, taught, predictions, weights)
        sums |= self.loss(targets, predictions, anchors, weights)
        if self.dense_loss:
            sums |= self.dense_loss(LossContext(images, faces, targets, predictions, anchors, decoder, topology))
        losses = global_means(sums)
        return sum(losses.values()) / tf.distribute.get_strategy().num_replicas_in_sync, losses


def global_means(sums: Mapping[str, tuple[tf.Tensor, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Divide sums by the number of weights that are not 0, over all replicas; at least by 1.

    Args:
        sums: dict name -> (float32 scalar, the sum over this replica's part of the batch; float32 tensor, weights).

    Returns:
        dict name -> float32 scalar: on a replica its own part of the global mean times the number of replicas, so that
        the mean over the replicas, as Keras takes it, is the global mean.
    """
    replicas = tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, tf.float32)
    counts = {id(weights): _global_count(weights) for _, weights in sums.values()}
    return {name: replicas * (total / counts[id(weights)]) for name, (total, weights) in sums.items()}


def _global_count(weights):
    count = tf.reduce_sum(tf.cast(weights > 0, tf.float32))
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return tf.stop_gradient(tf.maximum(count, 1.0))
