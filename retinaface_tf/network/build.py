"""The whole network as a graph of layers: images in, raw predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retinaface_tf.network.backbone import build_backbone
from retinaface_tf.network.context_module import build_contexts
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import FIRST, FIRST_HEADS, HEADS, merged_heads, separate_heads
from retinaface_tf.network.pixel_normalization import PixelNormalization

if TYPE_CHECKING:
    import keras


def stages_of(cascade: bool, embedding: int = 0) -> dict[str, Mapping[str, tuple[int, ...]]]:
    """What is predicted, one step after the other: dict prefix of the predictions' names -> heads (see `HEADS`).

    Args:
        cascade: bool.
        embedding: int. Numbers that a dense branch wants of each anchor, as "vertex"; 0 without one.
    """
    heads = {**HEADS, "vertex": (embedding,)} if embedding else HEADS
    return {FIRST: FIRST_HEADS, "": heads} if cascade else {"": heads}


def build_network(
    images: keras.KerasTensor,
    stages: Mapping[str, Mapping[str, tuple[int, ...]]],
    *,
    backbone: str,
    anchors: Mapping[str, Sequence[float]],
    num_filters: int,
    shared_context: bool,
    deformable: Any,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    folded: bool,
    dtype: Any,
) -> dict[str, keras.KerasTensor]:
    """Apply the network to images.

    Args:
        images: Keras tensor `[N, H, W, 3]`.
        stages: dict, see `stages_of`. The first heads of a cascade have plain context modules of their own.
        anchors: dict level -> sizes.
        others: as in `RetinaFace`.

    Returns:
        dict of Keras tensors, the predictions.
    """
    slope = 0.1 if num_filters <= 64 else 0.0
    options = {"folded": folded, "dtype": dtype}
    x = PixelNormalization(pixel_mean, pixel_std, dtype=dtype, name="pixels")(images)
    features = build_backbone(backbone, x, **options)
    pyramid = FeaturePyramid(tuple(anchors), num_filters, slope, deformable=deformable, name="pyramid", **options)(
        features
    )
    make_heads = merged_heads if folded else separate_heads
    outputs = {}
    for prefix, heads in stages.items():
        own = {**options, "deformable": None if prefix == FIRST else deformable}
        contexts = build_contexts(pyramid, num_filters, slope, shared_context, prefix, **own)
        outputs |= make_heads(contexts, anchors, heads, dtype, prefix)
    return outputs
