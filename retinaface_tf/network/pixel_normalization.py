"""Pixels as the backbone was trained to see them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("retinaface_tf")
class PixelNormalization(keras.layers.Layer):
    """`(pixels - mean) / std` for each channel.

    The same numbers as `keras.layers.Rescaling`, which costs a sixth of a whole forward pass on a CPU: broadcasting
    over an innermost axis of three is not vectorised, so here whole rows of pixels are the innermost axis.

    Args:
        mean, std: tuples of a float for each channel.

    Input and output: tensors `[N, H, W, C]`; the input may be of any dtype, the output is of the compute dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        batch, height, width, channels = ops.shape(inputs)
        rows = ops.reshape(inputs, (batch, height, width * channels))
        rows = ops.cast(rows, self.compute_dtype) - self._row(self.mean, width)
        if any(s != 1 for s in self.std):
            rows = rows * self._row([1 / s for s in self.std], width)
        return ops.reshape(rows, (batch, height, width, channels))

    def _row(self, values, width):
        return ops.tile(ops.convert_to_tensor(values, self.compute_dtype), (width,))

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": list(self.mean), "std": list(self.std)}
