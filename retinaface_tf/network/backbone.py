"""The bodies: an image in, feature maps at strides 4 to 32 out."""

from collections.abc import Sequence
from typing import Any

import keras

from retinaface_tf.network.conv_block import ConvBlock

MOBILENET_WIDTHS = {"mobilenet_v1_025": 0.25, "mobilenet_v1_050": 0.5, "mobilenet_v1_100": 1.0}
RESNET_DEPTHS = {  # name: (blocks in each of the four stages, whether a block is a bottleneck)
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
BACKBONES = (*MOBILENET_WIDTHS, *RESNET_DEPTHS)

# MobileNetV1's depthwise separable blocks as (channels out at width 1, stride), cut into the stages that the public
# RetinaFace checkpoints name: stages 1 to 3 end at strides 8, 16 and 32.
MOBILENET_STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)


def build_backbone(
    name: str, inputs: keras.KerasTensor, folded: bool = False, dtype: Any = None
) -> dict[str, keras.KerasTensor]:
    """Apply the backbone called `name` to `inputs`.

    Args:
        name: one of `BACKBONES`.
        inputs: Float Keras tensor `[N, H, W, 3]`.
        folded: bool. See `ConvBlock`.
        dtype: Dtype or policy of every layer.

    Returns:
        dict of Keras tensors `[N, ceil(H / s), ceil(W / s), C]`: "C2" to "C5" at strides 4, 8, 16 and 32.

    Raises:
        ValueError: for another name.
    """
    options = {"folded": folded, "dtype": dtype}
    if name in MOBILENET_WIDTHS:
        return mobilenet_v1(inputs, MOBILENET_WIDTHS[name], options)
    if name in RESNET_DEPTHS:
        return resnet(inputs, *RESNET_DEPTHS[name], options)
    raise ValueError(f"`backbone` must be one of {list(BACKBONES)}. Received: backbone={name!r}")


def mobilenet_v1(inputs: keras.KerasTensor, width: float, options: dict[str, Any]) -> dict[str, keras.KerasTensor]:
    """MobileNetV1 (arXiv 1704.04861) with leaky ReLUs of slope 0.1, as in the public RetinaFace checkpoints."""
    features = {}
    x = ConvBlock(int(32 * width), 3, strides=2, negative_slope=0.1, name="body_stage1_0", **options)(inputs)
    stride = 2
    for stage, blocks in enumerate(MOBILENET_STAGES, start=1):
        for index, (channels, block_stride) in enumerate(blocks, start=1 if stage == 1 else 0):
            stride *= block_stride
            name = f"body_stage{stage}_{index}"
            x = ConvBlock(
                None, 3, strides=block_stride, depthwise=True, negative_slope=0.1, name=f"{name}_depthwise", **options
            )(x)
            x = ConvBlock(int(channels * width), 1, negative_slope=0.1, name=f"{name}_pointwise", **options)(x)
            features[stride] = x  # the last map of each stride stays
    return {"C2": features[4], "C3": features[8], "C4": features[16], "C5": features[32]}


def resnet(
    inputs: keras.KerasTensor, blocks_per_stage: Sequence[int], bottleneck: bool, options: dict[str, Any]
) -> dict[str, keras.KerasTensor]:
    """ResNet (arXiv 1512.03385) in torchvision's arithmetic: the 3x3 convolution of a bottleneck has the stride."""
    x = ConvBlock(64, 7, strides=2, negative_slope=0.0, name="body_stem", **options)(inputs)
    # PyTorch's pooling pads with minus infinity; after a ReLU zeros give the same maximum.
    x = keras.layers.ZeroPadding2D(1, dtype=options["dtype"], name="body_pool_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, dtype=options["dtype"], name="body_pool")(x)
    features = {}
    for stage, blocks in enumerate(blocks_per_stage, start=1):
        for index in range(blocks):
            stride = 2 if stage > 1 and index == 0 else 1
            width = 64 * 2 ** (stage - 1)
            x = resnet_block(x, width, stride, bottleneck, f"body_layer{stage}_{index}", options)
        features[f"C{stage + 1}"] = x
    return features


def resnet_block(
    inputs: keras.KerasTensor, width: int, stride: int, bottleneck: bool, name: str, options: dict[str, Any]
) -> keras.KerasTensor:
    """A residual block; the shortcut is a 1x1 convolution wherever the shape changes."""

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
