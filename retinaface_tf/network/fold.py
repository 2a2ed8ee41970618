"""A trained network's weights as inference wants them: normalisation multiplied in, a level's heads in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_tf.network.conv_block import ConvBlock

if TYPE_CHECKING:
    import keras


def fold_weights(model: keras.Model, folded: keras.Model) -> None:
    """Write the weights of a `RetinaFace` into one of the same architecture that was made with `folded=True`."""
    for ours, theirs in zip(conv_blocks(model), conv_blocks(folded), strict=True):
        ours.fold_into(theirs)
    for prefix, heads in model.stages.items():
        for level in model.anchor_generator.sizes:
            separate = [model.get_layer(f"{prefix}{kind}_head_{level}") for kind in heads]
            folded.get_layer(f"{prefix}heads_{level}").merge(separate)
    if model.vertex_decoder is not None:
        folded.vertex_decoder.set_weights(model.vertex_decoder.get_weights())


def conv_blocks(model: keras.Model) -> list[ConvBlock]:
    """All `ConvBlock`s of a model, inner ones too: list, in the order in which they were made."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, ConvBlock)]
