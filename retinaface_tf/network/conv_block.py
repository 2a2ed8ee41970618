"""`ConvBlock`: convolution, batch normalization and activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.network.deformable_conv import DeformableConv2D

CHANNELS_LAST = "channels_last"  # every layer pins it, whatever keras.json says
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9  # PyTorch's momentum of 0.1

_zero_kernels: ContextVar[bool] = ContextVar("zero_kernels", default=False)
_folded_biases: ContextVar[Mapping[int, Any] | None] = ContextVar("folded_biases", default=None)


@contextmanager
def zero_kernels() -> Iterator[None]:
    """Build layers whose weights are about to be assigned: their kernels begin with zeros, not random numbers."""
    token = _zero_kernels.set(True)
    try:
        yield
    finally:
        _zero_kernels.reset(token)


def kernel_initializer(name: str) -> str:
    """Name of the initializer of a kernel that would have `name`: "zeros" within `zero_kernels`."""
    return "zeros" if _zero_kernels.get() else name


@contextmanager
def folded_convolutions(biases: Mapping[ConvBlock, Any]) -> Iterator[None]:
    """Trace blocks with their batch normalization replaced by a bias `[filters]`: one for every `ConvBlock` traced.

    The caller substitutes the kernels that `ConvBlock.folded_weights` gives, by `keras.StatelessScope`.
    """
    token = _folded_biases.set({id(block): bias for block, bias in biases.items()})
    try:
        yield
    finally:
        _folded_biases.reset(token)


@keras.saving.register_keras_serializable("retinaface_tf")
class ConvBlock(keras.layers.Layer):
    """A convolution with PyTorch's padding, then batch normalization, then a leaky ReLU.

    PyTorch pads `kernel_size // 2` on every side. With stride 1 that is TensorFlow's SAME, which costs no copy of the
    input; with stride 2 SAME would pad the right and bottom only, so there the padding is a layer of its own.

    Args:
        filters: int. Channels out; ignored (and `None`) if `depthwise`.
        kernel_size: int, odd.
        strides: int.
        depthwise: bool. One filter for each channel in.
        negative_slope: float or `None`. Slope of the ReLU below zero: 0 is a plain ReLU, `None` is no activation.
        folded: bool. Without batch normalization: the convolution has a bias, and takes `folded_weights`.
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
        channels_last = {"data_format": CHANNELS_LAST, **own}
        self.pad = keras.layers.ZeroPadding2D(padding, **channels_last) if padding else None
        options = {
            "strides": strides,
            "padding": "valid" if padding else "same",
            "use_bias": folded,
            "name": "convolution",
            **channels_last,
        }
        if deformable and filters is not None:
            self.convolution = DeformableConv2D(
                filters,
                kernel_size,
                version=deformable,
                use_bias=folded,
                kernel_initializer=kernel_initializer("he_normal"),
                name="convolution",
                **own,
            )
        elif depthwise:
            initializer = kernel_initializer("glorot_uniform")
            self.convolution = keras.layers.DepthwiseConv2D(kernel_size, depthwise_initializer=initializer, **options)
        else:
            self.convolution = keras.layers.Conv2D(
                filters, kernel_size, kernel_initializer=kernel_initializer("he_normal"), **options
            )
        # The variance of pixels is too large for float16, so its variables stay in float32.
        half = self.dtype_policy.name in ("float16", "bfloat16")
        self.normalisation: Any = (
            None
            if folded
            else keras.layers.BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM,
                epsilon=BATCH_NORM_EPSILON,
                name="normalisation",
                dtype=f"mixed_{self.dtype_policy.name}" if half else self.dtype_policy,
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
        biases = _folded_biases.get()
        if self.normalisation is None:
            pass
        elif biases is not None:
            x = ops.add(x, ops.reshape(ops.cast(biases[id(self)], self.compute_dtype), (1, 1, 1, -1)))
        else:
            x = self.normalisation(x, training=training)
        return self.activate(x)

    def activate(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The block's activation, which its convolution's outputs pass through last."""
        if self.negative_slope is None:
            return x
        return ops.leaky_relu(x, self.negative_slope) if self.negative_slope else ops.relu(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self.pad is not None:
            input_shape = self.pad.compute_output_shape(input_shape)
        return self.convolution.compute_output_shape(input_shape)

    def folded_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of the convolution that does this block's inference arithmetic: float32 arrays.

        `gamma * (conv(x) - mean) / sqrt(variance + epsilon) + beta` is a convolution whose kernel is scaled for each
        channel out, plus a constant. Computed in float64.
        """
        kernel = self.convolution.kernel.numpy()
        if self.normalisation is None:
            return kernel, self.convolution.bias.numpy()
        norm = self.normalisation
        gamma, beta, mean, variance = (
            v.numpy().astype("float64") for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / (variance + norm.epsilon) ** 0.5
        # Depthwise kernels are [k, k, C, 1], all others [k, k, C in, C out].
        kernel = kernel.astype("float64") * (scale[:, None] if self.depthwise else scale)
        return kernel.astype("float32"), (beta - mean * scale).astype("float32")

    def fold_into(self, folded: ConvBlock) -> None:
        """Write `folded_weights` into a block of the same shape with `folded=True`."""
        kernel, bias = self.folded_weights()
        folded.convolution.kernel.assign(kernel)
        folded.convolution.bias.assign(bias)
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
