"""The table of backbones, which return feature maps at strides 4 to 32. Add an entry to `BACKBONES` for a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from retinaface_tf.network.conv_block import CHANNELS_LAST, ConvBlock

Features = dict[str, keras.KerasTensor]


@dataclass(frozen=True)
class Backbone:
    """Builder and properties of a backbone.

    Attributes:
        build: function of (inputs float `[N, H, W, 3]`, folded, dtype) that applies the layers and returns a dict of
            Keras tensors "C2" to "C5" `[N, ceil(H / s), ceil(W / s), C]` at strides 4, 8, 16 and 32. Layer names begin
            with "body_"; convolutions are `ConvBlock`s, which take `folded` and `dtype`.
        stages: for each stage, from the image on, the beginnings of its layers' names after "body_": what training can
            freeze.
        last_float_layer: name of the last layer that stays in floats in an int8 export: docs/tflite.md has what other
            places cost and bring.
    """

    build: Callable[..., Features]
    stages: tuple[tuple[str, ...], ...]
    last_float_layer: str

    def stage_of(self, layer: str) -> int:
        """Number of the stage that a layer belongs to, from 1; 0 for a layer outside the backbone."""
        for number, beginnings in enumerate(self.stages, start=1):
            if layer.startswith(tuple(f"body_{beginning}" for beginning in beginnings)):
                return number
        return 0


# MobileNetV1's depthwise separable blocks as (channels out at width 1, stride), cut into the stages that the public
# RetinaFace checkpoints name: stages 1 to 3 end at strides 8, 16 and 32.
MOBILENET_STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)


def mobilenet_v1(inputs: keras.KerasTensor, folded: bool, dtype: Any, width: float) -> Features:
    """MobileNetV1 (arXiv 1704.04861) with leaky ReLUs of slope 0.1, as in the public RetinaFace checkpoints."""
    options = {"negative_slope": 0.1, "folded": folded, "dtype": dtype}
    features = {}
    x = ConvBlock(int(32 * width), 3, strides=2, name="body_stage1_0", **options)(inputs)
    stride = 2
    for stage, blocks in enumerate(MOBILENET_STAGES, start=1):
        for index, (channels, block_stride) in enumerate(blocks, start=1 if stage == 1 else 0):
            stride *= block_stride
            name = f"body_stage{stage}_{index}"
            x = ConvBlock(None, 3, strides=block_stride, depthwise=True, name=f"{name}_depthwise", **options)(x)
            x = ConvBlock(int(channels * width), 1, name=f"{name}_pointwise", **options)(x)
            features[stride] = x  # the last map of each stride stays
    return {"C2": features[4], "C3": features[8], "C4": features[16], "C5": features[32]}


def resnet(
    inputs: keras.KerasTensor, folded: bool, dtype: Any, blocks_per_stage: Sequence[int], bottleneck: bool
) -> Features:
    """ResNet (arXiv 1512.03385) in torchvision's arithmetic: the 3x3 convolution of a bottleneck has the stride."""
    options = {"folded": folded, "dtype": dtype}
    x = ConvBlock(64, 7, strides=2, negative_slope=0.0, name="body_stem", **options)(inputs)
    # PyTorch's pooling pads with minus infinity; after a ReLU zeros give the same maximum.
    x = keras.layers.ZeroPadding2D(1, data_format=CHANNELS_LAST, dtype=dtype, name="body_pool_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, data_format=CHANNELS_LAST, dtype=dtype, name="body_pool")(x)
    features = {}
    for stage, blocks in enumerate(blocks_per_stage, start=1):
        for index in range(blocks):
            stride = 2 if stage > 1 and index == 0 else 1
            width = 64 * 2 ** (stage - 1)
            x = _resnet_block(x, width, stride, bottleneck, f"body_layer{stage}_{index}", options)
        features[f"C{stage + 1}"] = x
    return features


def _resnet_block(inputs, width, stride, bottleneck, name, options):
    """Apply a residual block; the shortcut is a 1x1 convolution wherever the shape changes."""

    def block(x, filters, kernel_size, strides=1, slope=None, part=""):
        return ConvBlock(filters, kernel_size, strides=strides, negative_slope=slope, name=f"{name}_{part}", **options)(
            x
        )

    channels = 4 * width if bottleneck else width
    if bottleneck:
        x = block(inputs, width, 1, slope=0.0, part="conv1")
        x = block(x, width, 3, strides=stride, slope=0.0, part="conv2")
        x = block(x, channels, 1, part="conv3")
    else:
        x = block(inputs, width, 3, strides=stride, slope=0.0, part="conv1")
        x = block(x, channels, 3, part="conv2")
    shortcut = inputs
    if stride > 1 or inputs.shape[-1] != channels:
        shortcut = block(inputs, channels, 1, strides=stride, part="downsample")
    x = keras.layers.Add(dtype=options["dtype"], name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(dtype=options["dtype"], name=f"{name}_relu")(x)


def _mobilenet(width):
    stages = (("stage1",), ("stage2",), ("stage3",))
    return Backbone(partial(mobilenet_v1, width=width), stages, last_float_layer="body_stage1_2_pointwise")


def _resnet(blocks_per_stage, bottleneck):
    stages = (("stem", "pool", "layer1"), ("layer2",), ("layer3",), ("layer4",))
    build = partial(resnet, blocks_per_stage=blocks_per_stage, bottleneck=bottleneck)
    return Backbone(build, stages, last_float_layer="body_stem")


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v1_025": _mobilenet(0.25),
    "mobilenet_v1_050": _mobilenet(0.5),
    "mobilenet_v1_100": _mobilenet(1.0),
    "resnet18": _resnet((2, 2, 2, 2), bottleneck=False),
    "resnet34": _resnet((3, 4, 6, 3), bottleneck=False),
    "resnet50": _resnet((3, 4, 6, 3), bottleneck=True),
    "resnet101": _resnet((3, 4, 23, 3), bottleneck=True),
    "resnet152": _resnet((3, 8, 36, 3), bottleneck=True),
}


def get_backbone(name: str) -> Backbone:
    """The entry of `BACKBONES` called `name`.

    Raises:
        ValueError: for another name, listing the known ones.
    """
    try:
        return BACKBONES[name]
    except (KeyError, TypeError):
        raise ValueError(f"`backbone` must be one of {list(BACKBONES)}. Received: backbone={name!r}") from None
