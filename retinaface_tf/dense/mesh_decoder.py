"""128 numbers in, a coloured face out: the mesh decoder of RetinaFace's first version."""

from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.dense.chebyshev import ChebyshevConv
from retinaface_tf.dense.mesh_hierarchy import MeshHierarchy
from retinaface_tf.dense.mesh_upsampling import MeshUpsampling

SHAPE_SCALE = 0.1  # of a face's size: what an output of 1 moves a vertex by
SKIN = (0.30, -0.05, -0.30)  # the logits of the mean face's colour, RGB


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshDecoder(keras.layers.Layer):
    """Shape and texture of a face, jointly, from their parameters (arXiv 1905.00641, section 3.3; 1904.03525).

    A dense layer fills the coarsest level of the mesh; then, level by level, barycentric up-sampling and a Chebyshev
    convolution with an ELU, and a last convolution to six numbers a vertex: a displacement from the mean face and a
    colour. Parameters of 0 are the mean face, whatever has been learnt of the others, up to the biases.

    Args:
        hierarchy: dict, a `MeshHierarchy` as `to_config` writes it; level 0 is the mean face, of size 1.
        filters: int, channels at every level.
        order: int, see `ChebyshevConv`.
        codes: int, number of parameters.

    Input: float tensor `[M, codes]`. Output: (float tensor `[M, V, 3]`, vertices; float tensor `[M, V, 3]`, RGB in
    (0, 1)).
    """

    def __init__(
        self, hierarchy: dict[str, Any], filters: int = 16, order: int = 3, codes: int = 128, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.hierarchy = hierarchy
        self.filters = filters
        self.order = order
        self.codes = codes

        levels = MeshHierarchy.from_config(hierarchy)
        self.mean, self.triangles = levels.vertices[0], levels.triangles[0]
        self.skin = (1 / (1 + np.exp(-np.array(SKIN)))).astype(np.float32)  # 0.57, 0.49, 0.43
        self.coarsest = len(levels.vertices[-1])
        own = {"dtype": self.dtype_policy}
        self.dense = keras.layers.Dense(self.coarsest * filters, name="dense", **own)
        self.up, self.convolutions = [], []
        for level in reversed(range(len(levels.vertices) - 1)):
            self.up.append(
                MeshUpsampling(levels.up_indices[level], levels.up_weights[level], name=f"up_{level}", **own)
            )
            self.convolutions.append(self._convolution(levels, level, filters, f"convolution_{level}"))
        quiet = keras.initializers.RandomNormal(stddev=0.01)  # faces begin near the mean one
        self.last = self._convolution(levels, 0, 6, "last", kernel_initializer=quiet)

    def _convolution(self, levels, level, filters, name, **options):
        triangles, vertices = levels.triangles[level], levels.vertices[level]
        options |= {"name": name, "dtype": self.dtype_policy}
        return ChebyshevConv(filters, self.order, triangles, len(vertices), **options)

    def build(self, input_shape: Any) -> None:
        self.dense.build((None, self.codes))
        shape = (self.coarsest, None, self.filters)
        for up, convolution in zip(self.up, self.convolutions, strict=True):
            up.build(shape)
            shape = up.compute_output_shape(shape)
            convolution.build(shape)
        self.last.build(shape)

    def call(self, inputs: keras.KerasTensor) -> Any:
        x = ops.transpose(ops.reshape(self.dense(inputs), (-1, self.coarsest, self.filters)), (1, 0, 2))
        for up, convolution in zip(self.up, self.convolutions, strict=True):
            x = ops.elu(convolution(up(x)))
        x = ops.transpose(ops.cast(self.last(x), "float32"), (1, 0, 2))
        vertices = ops.convert_to_tensor(self.mean, "float32") + SHAPE_SCALE * x[..., :3]
        return vertices, ops.sigmoid(ops.convert_to_tensor(SKIN, "float32") + x[..., 3:])

    def compute_output_spec(self, inputs: keras.KerasTensor) -> Any:
        shape = (inputs.shape[0], len(self.mean), 3)
        return keras.KerasTensor(shape, "float32"), keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hierarchy": self.hierarchy,
            "filters": self.filters,
            "order": self.order,
            "codes": self.codes,
        }
