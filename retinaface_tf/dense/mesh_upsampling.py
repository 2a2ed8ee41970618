"""From a coarse mesh to a finer one: every new vertex is a mean of the corners of a triangle."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshUpsampling(keras.layers.Layer):
    """Barycentric up-sampling (arXiv 1807.10267) along a `MeshHierarchy`. No weights to learn.

    Args:
        indices: int array or list `[V, 3]`: coarse vertices for each of the V fine ones.
        weights: float array or list `[V, 3]`.

    Input and output: float tensors `[V of the coarser, M, C]` and `[V, M, C]`.
    """

    def __init__(self, indices: ArrayLike, weights: ArrayLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.indices = np.asarray(indices, np.int32)
        self.factors = np.asarray(weights, np.float32)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        total = 0.0
        for places, factors in zip(self.indices.T, self.factors.T, strict=True):
            factors = ops.convert_to_tensor(factors[:, None, None], inputs.dtype)
            total = total + factors * ops.take(inputs, ops.convert_to_tensor(places, "int32"), axis=0)
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (len(self.indices), *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "indices": self.indices.tolist(), "weights": self.factors.tolist()}
