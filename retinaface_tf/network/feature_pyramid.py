"""Feature pyramid: a map for every stride, all with the same number of channels, the coarser added to the finer."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from retinaface_tf.network.conv_block import ConvBlock


@keras.saving.register_keras_serializable("retinaface_tf")
class FeaturePyramid(keras.layers.Layer):
    """FPN (arXiv 1612.03144) in the form of the public RetinaFace checkpoints.

    Every lateral 1x1 convolution and every 3x3 merge ends in batch normalization and a leaky ReLU; a merge follows each
    sum, so the coarsest lateral has none. Levels beyond the backbone's last map come from a 3x3 convolution of
    stride 2 on that map (RetinaFace, arXiv 1905.00641: P6 on C5).

    Args:
        levels: tuple of neighboring names from "P2" to "P6", fine to coarse.
        num_filters: int. Channels of every level.
        negative_slope: float.
        folded, deformable: see `ConvBlock`; deformable are the 3x3 merges of the lateral connections.

    Input: dict of float tensors `[N, H, W, C]` with at least the maps "C2" to "C5" that `levels` name.
    Output: dict level -> float tensor `[N, H, W, num_filters]`.
    """

    def __init__(
        self,
        levels: Sequence[str],
        num_filters: int,
        negative_slope: float,
        folded: bool = False,
        deformable: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.levels = tuple(levels)
        self.num_filters = num_filters
        self.negative_slope = negative_slope
        self.folded = folded
        self.deformable = deformable

        options = {"negative_slope": negative_slope, "folded": folded, "dtype": self.dtype_policy}
        self.lateral_levels = tuple(level for level in self.levels if level <= "P5")
        self.laterals = [ConvBlock(num_filters, 1, name=f"lateral_{level}", **options) for level in self.lateral_levels]
        self.merges = [
            ConvBlock(num_filters, 3, deformable=deformable, name=f"merge_{level}", **options)
            for level in self.lateral_levels[:-1]
        ]
        self.extra = ConvBlock(num_filters, 3, strides=2, name="extra_P6", **options) if "P6" in self.levels else None

    def build(self, input_shape: Any) -> None:
        for level, lateral in zip(self.lateral_levels, self.laterals, strict=True):
            lateral.build(input_shape[_backbone_map(level)])
        for merge in self.merges:
            merge.build((None, None, None, self.num_filters))
        if self.extra is not None:
            self.extra.build(input_shape["C5"])

    def call(self, inputs: dict[str, keras.KerasTensor], training: bool | None = None) -> dict[str, keras.KerasTensor]:
        maps = [
            lateral(inputs[_backbone_map(level)], training=training)
            for level, lateral in zip(self.lateral_levels, self.laterals, strict=True)
        ]
        for i in reversed(range(len(self.merges))):
            coarser = _resize(maps[i + 1], tf.shape(maps[i])[1:3])
            maps[i] = self.merges[i](maps[i] + coarser, training=training)
        pyramid = dict(zip(self.lateral_levels, maps, strict=True))
        if self.extra is not None:
            pyramid["P6"] = self.extra(inputs["C5"], training=training)
        return pyramid

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = {level: (*input_shape[_backbone_map(level)][:3], self.num_filters) for level in self.lateral_levels}
        if self.extra is not None:
            shapes["P6"] = self.extra.compute_output_shape(input_shape["C5"])
        return shapes

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "num_filters": self.num_filters,
            "negative_slope": self.negative_slope,
            "folded": self.folded,
            "deformable": self.deformable,
        }


def _backbone_map(level):
    return "C" + level[1:]


def _resize(x, size):
    """Nearest up-sampling of `[N, H, W, C]` to `size` (height, width), which is PyTorch's: pixel `i * H // height`.

    `tf.image.resize` would look at pixel `(i + 0.5) * H // height`, which differs where a side is odd. In float32 it is
    exact for maps of up to 4,188 cells a side.
    """
    return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size, align_corners=False, half_pixel_centers=False)
