"""What a compiled model is to learn from a batch: anchors and faces to targets, and these and predictions to losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops
from keras.optimizers import LossScaleOptimizer

from retinaface_tf.geometry.box_coder import decode_boxes
from retinaface_tf.network.heads import FIRST, FIRST_HEADS

if TYPE_CHECKING:
    import tensorflow as tf


def scaled_optimizer(optimizer, dtype):
    """A Keras optimizer, wrapped so that gradients of "mixed_float16" do not vanish.

    Keras would do so itself, but looks at the policy of the model, and ours is that of the layers.
    """
    if dtype != "mixed_float16":
        return optimizer
    optimizer = keras.optimizers.get(optimizer)
    return optimizer if isinstance(optimizer, LossScaleOptimizer) else LossScaleOptimizer(optimizer)


def named_losses(
    model: Any, images: tf.Tensor, faces: dict[str, tf.Tensor], predictions: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """The losses of a batch.

    Args:
        model: `RetinaFace`, compiled.
        images: tensor `[N, H, W, 3]`.
        faces: dict, see `RetinaFace.compile`.
        predictions: dict as the model returns it.

    Returns:
        dict of float32 scalars, of `model.loss_names`.
    """
    height, width = ops.shape(images)[1:3]
    anchors = model.anchor_generator(height, width)
    counts = model.anchor_generator.level_counts(height, width)
    weights = faces.get("image_weight")
    losses = {}
    if model.cascade:
        first = {kind: predictions[FIRST + kind] for kind in FIRST_HEADS}
        targets = model.first_anchor_target(faces, anchors, level_counts=counts)
        found = model.detection_loss(targets, first, anchors, weights)
        losses |= {FIRST + kind: value for kind, value in found.items()}
        # From here on the boxes are given: how to move them the first heads learn from their own losses.
        anchors = ops.stop_gradient(decode_boxes(first["box"], anchors, model.variances))
    targets = model.anchor_target(faces, anchors, level_counts=counts)
    if model.distillation:
        answers = model.distillation.answers(images)
        targets = model.distillation.open_targets(targets, answers, anchors)
        losses[model.distillation.name] = model.distillation.loss(targets, answers, predictions, weights)
    losses |= model.detection_loss(targets, predictions, anchors, weights)
    if model.dense:
        losses |= model.vertex_loss(model, targets, predictions, anchors, faces, images)
    return losses


def require_parts(model, first_anchor_target, vertex_loss):
    """Raise ValueError unless a model is given what its cascade and its dense branch learn by, and nothing else."""
    for name, given, part, what in (
        ("first_anchor_target", first_anchor_target, model.cascade, "cascade"),
        ("vertex_loss", vertex_loss, model.dense, "dense branch"),
    ):
        if bool(part) != (given is not None):
            state = f"a model with{'' if part else 'out'} one, and {name}={given}"
            raise ValueError(f"`{name}` is for a {what}, and needed there. Received: {state}")
