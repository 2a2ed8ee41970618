"""The network as every converter wants it: batch normalisation folded, 32-bit floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


def plain_network(model: RetinaFace) -> RetinaFace:
    """A folded network in float32.

    Args:
        model: `RetinaFace`, folded or not, of any precision: not every runtime has bfloat16, and on a CPU it saves
            nothing.

    Returns:
        `RetinaFace`, folded. Never `model` itself: what follows may rescale its weights.
    """
    if model.folded or model.layers_dtype != "float32":
        copy = type(model)(**{**model.get_config(), "dtype": "float32"})
        copy.set_weights(model.get_weights())
        model = copy
    return model if model.folded else model.fold()
