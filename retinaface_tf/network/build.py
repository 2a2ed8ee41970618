"""The whole network as a graph of layers: images in, raw predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retinaface_tf.network.backbones import get_backbone
from retinaface_tf.network.context_module import build_contexts
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import FIRST, FIRST_HEADS, HEADS, merged_heads, separate_heads
from retinaface_tf.network.pixel_normalization import PixelNormalization

if TYPE_CHECKING:
    import keras


def stages_of(
    cascade: bool, more_heads: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Mapping[str, tuple[int, ...]]]:
    """Predictions of the network, stage by stage: dict prefix of the predictions' names -> heads (see `HEADS`).

    Args:
        cascade: bool. Two stages instead of one.
        more_heads: heads of the last stage beside `HEADS`, or `None`.
    """
    heads = {**HEADS, **(more_heads or {})}
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
) -> tuple[dict[str, keras.KerasTensor], dict[str, dict[str, keras.KerasTensor]]]:
    """Apply the network to images.

    Args:
        images: Keras tensor `[N, H, W, 3]`.
        stages: dict, see `stages_of`. The first heads of a cascade have plain context modules of their own.
        anchors: dict level -> sizes.
        others: as in `RetinaFace`.

    Returns:
        (dict of Keras tensors, the predictions; dict prefix -> level -> Keras tensor, the inputs of the heads).
    """
    slope = 0.1 if num_filters <= 64 else 0.0
    options = {"folded": folded, "dtype": dtype}
    x = PixelNormalization(pixel_mean, pixel_std, dtype=dtype, name="pixels")(images)
    maps = get_backbone(backbone).build(x, **options)
    features = {level: maps[level] for level in ("C2", "C3", "C4", "C5")}  # a backbone may return more
    pyramid = FeaturePyramid(tuple(anchors), num_filters, slope, deformable=deformable, name="pyramid", **options)(
        features
    )
    make_heads = merged_heads if folded else separate_heads
    outputs, contexts = {}, {}
    for prefix, heads in stages.items():
        own = {**options, "deformable": None if prefix == FIRST else deformable}
        contexts[prefix] = build_contexts(pyramid, num_filters, slope, shared_context, prefix, **own)
        outputs |= make_heads(contexts[prefix], anchors, heads, dtype, prefix)
    return outputs, contexts
