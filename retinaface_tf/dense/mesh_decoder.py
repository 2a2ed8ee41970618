"""Mesh decoder of RetinaFace's first version: 128 numbers to a colored face, by Chebyshev graph convolutions."""

from typing import Any

import keras
import numpy as np
from keras import ops

from retinaface_tf.dense.mesh_hierarchy import MeshHierarchy, MeshUpsampling

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


@keras.saving.register_keras_serializable("retinaface_tf")
class ChebyshevConv(keras.layers.Layer):
    """Graph convolution of ChebNet (arXiv 1606.09375): `sum over k of T_k(L) x W_k`, plus a bias.

    `L = -D^(-1/2) A D^(-1/2)` is the mesh graph's normalised Laplacian `I - D^(-1/2) A D^(-1/2)`, whose eigenvalues lie
    in [0, 2], moved to [-1, 1]; `T_k` are Chebyshev's polynomials, `T_0 = 1`, `T_1 = L`,
    `T_k = 2 L T_(k-1) - T_(k-2)`. A filter of order K sees neighbours up to K - 1 edges away.

    `L x` is written as gathers, one for each place in a list of neighbours: no sparse operations, which TFLite and ONNX
    lack, and no `[V, V]` table, which would be larger than the network.

    Args:
        filters: int. Channels out.
        order: int, K, at least 1.
        triangles: int array or list `[F, 3]`: the mesh.
        num_vertices: int, V.
        kernel_initializer: see `keras.initializers.get`. The terms' variances add up: He's rule for all together.

    Input and output: float tensors `[V, M, C]` and `[V, M, filters]` of M faces. Vertices come first, so that a gather
    copies whole rows.
    """

    def __init__(self, filters, order, triangles, num_vertices, kernel_initializer="he_normal", **kwargs):
        super().__init__(**kwargs)
        if order < 1:
            raise ValueError(f"`order` must be at least 1. Received: order={order}")
        self.filters = filters
        self.order = order
        self.triangles = np.asarray(triangles, np.int32)
        self.num_vertices = num_vertices
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.neighbours, self.factors = laplacian_rows(self.triangles, num_vertices)

    def build(self, input_shape):
        shape = (self.order * input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs):
        terms = [inputs]
        if self.order > 1:
            terms.append(self.laplacian(inputs))
        for _ in range(2, self.order):
            terms.append(2 * self.laplacian(terms[-1]) - terms[-2])
        x = terms[0] if self.order == 1 else ops.concatenate(terms, axis=-1)
        return ops.matmul(x, ops.cast(self.kernel, x.dtype)) + ops.cast(self.bias, x.dtype)

    def laplacian(self, inputs):
        """`L x`: `[V, M, C]` to the same."""
        total = 0.0
        for places, factors in zip(self.neighbours.T, self.factors.T, strict=True):
            factors = ops.convert_to_tensor(factors[:, None, None], inputs.dtype)
            total = total + factors * ops.take(inputs, ops.convert_to_tensor(places, "int32"), axis=0)
        return total

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "order": self.order,
            "triangles": self.triangles.tolist(),
            "num_vertices": self.num_vertices,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def edges_of(triangles):
    """Every edge of a mesh once: int array `[E, 2]`, the lower vertex first, in order."""
    triangles = np.asarray(triangles)
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def laplacian_rows(triangles, num_vertices):
    """The rows of `L`, moved as in `ChebyshevConv`, without their zeros.

    Args:
        triangles: int array `[F, 3]`.
        num_vertices: int, V.

    Returns:
        (int32 `[V, D]`, float32 `[V, D]`): columns and values, D the most neighbours that a vertex has. Rows with fewer
        are filled with their own vertex and 0.
    """
    edges = edges_of(triangles)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    degrees = np.bincount(both[:, 0], minlength=num_vertices)
    starts = np.cumsum(degrees) - degrees
    place = np.arange(len(both)) - np.repeat(starts, degrees)
    columns = np.repeat(np.arange(num_vertices, dtype=np.int32)[:, None], degrees.max(initial=1), axis=1)
    values = np.zeros(columns.shape, np.float32)
    columns[both[:, 0], place] = both[:, 1]
    values[both[:, 0], place] = -1 / np.sqrt(degrees[both[:, 0]] * degrees[both[:, 1]])
    return columns, values
