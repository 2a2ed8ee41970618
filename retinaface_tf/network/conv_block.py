"""Convolution, batch normalisation, activation: the one brick of which the network is built."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from retinaface_tf.network.deformable_conv import DeformableConv2D

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9  # PyTorch's momentum of 0.1


@keras.saving.register_keras_serializable("retinaface_tf")
class ConvBlock(keras.layers.Layer):
    """A convolution with PyTorch's padding, then batch normalisation, then a leaky ReLU.

    PyTorch pads `kernel_size // 2` on every side. With stride 1 that is TensorFlow's SAME, which costs no copy of the
    input; with stride 2 SAME would pad the right and bottom only, so there the padding is a layer of its own.

    Args:
        filters: int. Channels out; ignored (and `None`) if `depthwise`.
        kernel_size: int, odd.
        strides: int.
        depthwise: bool. One filter for each channel in.
        negative_slope: float or `None`. Slope of the ReLU below zero: 0 is a plain ReLU, `None` is no activation.
        folded: bool. The arithmetic of the trained block in inference with the normalisation multiplied into the
            convolution, which then has a bias: see `fold_into`.
        deformable: "v1", "v2" (see `DeformableConv2D`) or `None` for a plain convolution. Only with stride
            1 and not depthwise.

    Input and output: float tensors `[N, H, W, C]`, `[N, ceil(H / strides), ceil(W / strides), filters]`.
    """

    def __init__(
        self,
        filters: int | None,
        kernel_size: int,
        strides: int = 1,
        depthwise: bool = False,
        negative_slope: float | None = None,
        folded: bool = False,
        deformable: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deformable and (strides > 1 or depthwise):
            raise ValueError(
                "`deformable` is for stride 1 and convolutions over all channels. Received: "
                f"strides={strides}, depthwise={depthwise}"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.depthwise = depthwise
        self.negative_slope = negative_slope
        self.folded = folded
        self.deformable = deformable

        own = {"dtype": self.dtype_policy}
        padding = kernel_size // 2 if strides > 1 else 0
        self.pad = keras.layers.ZeroPadding2D(padding, **own) if padding else None
        options = {
            "strides": strides,
            "padding": "valid" if padding else "same",
            "use_bias": folded,
            "name": "convolution",
            **own,
        }
        if deformable and filters is not None:
            self.convolution = DeformableConv2D(
                filters,
                kernel_size,
                version=deformable,
                use_bias=folded,
                kernel_initializer="he_normal",
                name="convolution",
                **own,
            )
        elif depthwise:
            self.convolution = keras.layers.DepthwiseConv2D(kernel_size, **options)
        else:
            self.convolution = keras.layers.Conv2D(filters, kernel_size, kernel_initializer="he_normal", **options)
        self.normalisation: Any = (
            None
            if folded
            else keras.layers.BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name="normalisation", **own
            )
        )

    def build(self, input_shape: Any) -> None:
        if self.pad is not None:
            self.pad.build(input_shape)
            input_shape = self.pad.compute_output_shape(input_shape)
        self.convolution.build(input_shape)
        if self.normalisation is not None:
            self.normalisation.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        x = inputs if self.pad is None else self.pad(inputs)
        x = self.convolution(x)
        if self.normalisation is not None:
            x = self.normalisation(x, training=training)
        if self.negative_slope is None:
            return x
        return ops.leaky_relu(x, self.negative_slope) if self.negative_slope else ops.relu(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self.pad is not None:
            input_shape = self.pad.compute_output_shape(input_shape)
        return self.convolution.compute_output_shape(input_shape)

    def fold_into(self, folded: ConvBlock) -> None:
        """Write this block's inference arithmetic into `folded`, a `ConvBlock` of the same shape with a bias.

        `gamma * (conv(x) - mean) / sqrt(variance + epsilon) + beta` is a convolution whose kernel is scaled for each
        channel out, plus a constant. Computed in float64.
        """
        norm = self.normalisation
        gamma, beta, mean, variance = (
            v.numpy().astype("float64") for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / (variance + norm.epsilon) ** 0.5
        kernel = self.convolution.kernel.numpy().astype("float64")
        # Depthwise kernels are [k, k, C, 1], all others [k, k, C in, C out].
        kernel = kernel * (scale[:, None] if self.depthwise else scale)
        folded.convolution.kernel.assign(kernel)
        folded.convolution.bias.assign(beta - mean * scale)
        if self.deformable:  # the offsets are read from what comes in, as before
            folded.convolution.offsets.set_weights(self.convolution.offsets.get_weights())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "depthwise": self.depthwise,
            "negative_slope": self.negative_slope,
            "folded": self.folded,
            "deformable": self.deformable,
        }
