"""Which variables learn: batch normalisation, the first stages of the body, and all but a dense branch can stay."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retinaface_tf.network.fold import conv_blocks

if TYPE_CHECKING:
    import keras

    from retinaface_tf.detector import RetinaFace


STAGE = re.compile(r"^body_(?:stem|stage(\d)|layer(\d))")


def freeze(model: RetinaFace, batch_norm: bool = False, body_stages: int = 0, detector: bool = False) -> None:
    """Fix a part of a model that is about to be compiled.

    Args:
        model: `RetinaFace`, not folded.
        batch_norm: bool. Its scales, shifts and statistics stay, and training normalises by the statistics, not by the
            batch.
        body_stages: int. So many stages of the body stay as they are, normalisation too: stage 1 to 3 of a MobileNet
            (strides up to 8, 16, 32), layer 1 to 4 of a ResNet, whose stem goes with layer 1.
        detector: bool. All that boxes and landmarks come from stays: a dense branch alone learns.

    Raises:
        ValueError: there are not so many stages; the model has no dense branch, so nothing would learn.
    """
    stages = {layer: _stage(layer.name) for layer in model.layers if _stage(layer.name)}
    most = max(stages.values())
    if not 0 <= body_stages <= most:
        raise ValueError(f"`body_stages` must be 0 to {most} for this body. Received: body_stages={body_stages}")
    if detector:
        if model.dense is None:
            raise ValueError(
                "`detector=True` leaves a model without a dense branch nothing to learn. Received: model.dense=None"
            )
        for layer in model.layers:
            layer.trainable = layer.name.startswith("vertex_head")  # the decoder is no layer of the graph
    for layer, stage in stages.items():
        if stage <= body_stages:
            layer.trainable = False
    if batch_norm:
        for block in conv_blocks(model):
            block.normalisation.trainable = False


def synchronise_batch_norm(model: keras.Model) -> None:
    """Let every batch normalisation use the batch of all replicas instead of its replica's part."""
    for block in conv_blocks(model):
        block.normalisation.synchronized = True


def _stage(name):
    """1 for the first stage of the body, and so on; 0 for what is no body."""
    found = STAGE.match(name)
    return int(found[1] or found[2] or 1) if found else 0
