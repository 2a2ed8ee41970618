"""A convolution that looks where it is told to, and is told by the map itself."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from retinaface_tf.network.bilinear import sampled_convolution

VERSIONS = ("v1", "v2")


@keras.saving.register_keras_serializable("retinaface_tf")
class DeformableConv2D(keras.layers.Layer):
    """Deformable convolution of stride 1: each tap of the kernel moves by an offset that a convolution predicts.

    "v1" (arXiv 1703.06211) has offsets alone. "v2" (arXiv 1811.11168) also multiplies each tap by `2 * sigmoid(m)`,
    where the paper has `sigmoid(m)` and a learning rate of a tenth. Offsets and m begin at 0, so that both begin as the
    plain convolution with the same kernel. Outside the map all is 0. Places are computed in float32 under every policy:
    bfloat16 would round them to half a pixel beyond the 128th.

    Args:
        filters: int. Channels out.
        kernel_size: int, odd.
        version: "v1" or "v2".
        use_bias: bool.
        kernel_initializer: of the kernel, as in `keras.layers.Conv2D`.

    Input and output: float tensors `[N, H, W, C]`, `[N, H, W, filters]`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        version: str = "v2",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if version not in VERSIONS:
            raise ValueError(f"`version` must be one of {list(VERSIONS)}. Received: version={version!r}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd. Received: kernel_size={kernel_size}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.version = version
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.taps = kernel_size**2
        self.offsets = keras.layers.Conv2D(
            self.taps * (3 if version == "v2" else 2),  # rows, columns, m
            kernel_size,
            padding="same",
            kernel_initializer="zeros",
            name="offsets",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias: Any = (
            self.add_weight(shape=(self.filters,), initializer="zeros", name="bias") if self.use_bias else None
        )
        self.offsets.build(input_shape)

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        _, height, width, channels = ops.shape(inputs)
        taps, reach = self.taps, self.kernel_size // 2
        moves, factors = ops.cast(self.offsets(inputs), "float32"), None
        if self.version == "v2":
            moves, modulation = tf.split(moves, [2 * taps, taps], axis=-1)
            factors = 2 * ops.sigmoid(modulation)
        y, x = (ops.cast(ops.arange(side), "float32") for side in (height, width))
        is_row = np.repeat(np.array([1, 0], np.float32), taps)
        tap_places = np.concatenate(np.divmod(np.arange(taps), self.kernel_size)).astype(np.float32) - reach
        regular = ops.reshape(y, (-1, 1, 1)) * is_row + (ops.reshape(x, (-1, 1)) * (1 - is_row) + tap_places)
        kernel = ops.reshape(ops.cast(self.kernel, self.compute_dtype), (taps, channels, self.filters))
        result = sampled_convolution(inputs, kernel, moves + regular, factors, training)
        return result if self.bias is None else result + ops.cast(self.bias, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "version": self.version,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
