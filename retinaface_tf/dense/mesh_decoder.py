"""Mesh decoder of arXiv 1905.00641: 128 numbers to a colored face, by Chebyshev convolutions on a mesh hierarchy."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from retinaface_tf.common.imports import install_hint
from retinaface_tf.dense.topology import edges_of

LARGEST_ARRAY = 1_000_000  # bytes of an array of a hierarchy
CHUNK = 1_000_000  # pairs of a vertex and a triangle that are looked at together


@dataclass(frozen=True)
class MeshHierarchy:
    """Levels of a mesh, fine to coarse; level 0 is the mesh itself. V and F below are those of each level.

    Attributes:
        vertices: list of float32 `[V, 3]`. A coarser level's vertices are some of the finer one's.
        triangles: list of int32 `[F, 3]`.
        down: list of int32 `[V of the coarser]`, one item fewer: where a coarse vertex is among the finer ones.
        up_indices: list of int32 `[V of the finer, 3]`: the corners of the coarse triangle that a fine vertex lies on.
        up_weights: list of float32 `[V of the finer, 3]`: its barycentric coordinates there, which add up to 1.
    """

    vertices: list
    triangles: list
    down: list
    up_indices: list
    up_weights: list

    def to_config(self) -> dict[str, Any]:
        """Text of all arrays, JSON-ready: dict name -> list of [dtype, shape, base64 of zlib of the bytes]."""
        return {name: [_pack(array) for array in arrays] for name, arrays in vars(self).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MeshHierarchy:
        """The hierarchy that `to_config` wrote. Raises `ValueError` for anything else."""
        try:
            return cls(**{name: [_unpack(*item) for item in items] for name, items in config.items()})
        except (TypeError, ValueError, AttributeError, zlib.error) as error:
            raise ValueError(f"not a mesh hierarchy as `MeshHierarchy.to_config` writes it ({error})") from None


def build_hierarchy(vertices: np.ndarray, triangles: np.ndarray, levels: int = 4, factor: float = 4) -> MeshHierarchy:
    """Simplify a mesh again and again, by quadric error metrics (Garland and Heckbert, 1997).

    As in CoMA (arXiv 1807.10267): going down, vertices are dropped; going up, a dropped vertex is the barycentric mean
    of the corners of the coarse triangle that it is nearest to.

    Args:
        vertices: float array `[V, 3]`.
        triangles: int array `[F, 3]`.
        levels: int, the mesh itself included. Fewer come out where a mesh becomes too small to halve.
        factor: float over 1. So many times fewer triangles at each level.

    Raises:
        ImportError: if fast-simplification or trimesh is missing; the message names the extra.
        ValueError: if a triangle names a vertex that is not there, or a vertex belongs to none.
    """
    simplify, nearest = _libraries()
    vertices, triangles = np.asarray(vertices, np.float32), np.asarray(triangles, np.int32)
    if triangles.min(initial=0) < 0 or set(triangles.ravel().tolist()) != set(range(len(vertices))):
        raise ValueError(f"`triangles` must use every one of the {len(vertices)} vertices, and no other")
    result = MeshHierarchy([vertices], [triangles], [], [], [])
    while len(result.vertices) < levels:
        fine, target = result.vertices[-1], int(len(result.triangles[-1]) / factor)
        points, faces = simplify(fine, result.triangles[-1], target_count=max(target, 4))
        if len(points) < 4 or len(points) > 0.75 * len(fine):
            break
        down = _own_vertices(points, fine)
        coarse, faces = fine[down], np.asarray(faces, np.int32)
        indices, weights = _up(fine, coarse, faces, nearest)
        indices[down], weights[down] = np.arange(len(down))[:, None], (1, 0, 0)
        for values, value in zip(vars(result).values(), (coarse, faces, down, indices, weights), strict=True):
            values.append(value)
    return result


def _libraries():
    try:
        import fast_simplification
        from trimesh import triangles
    except ImportError as error:
        raise ImportError(f"simplifying a mesh needs a package ({error}): {install_hint('mesh')}") from None
    return fast_simplification.simplify, triangles


def _own_vertices(points, fine):
    """For each simplified point the fine vertex that stands for it, none twice: int32 `[V of the coarser]`."""
    from scipy.optimize import linear_sum_assignment

    distances = ((points[:, None] - fine[None]) ** 2).sum(axis=-1)
    return linear_sum_assignment(distances)[1].astype(np.int32)


def _up(fine, coarse, faces, library):
    """Corners and barycentric coordinates of the point of the coarse mesh that is nearest to each fine vertex."""
    corners = coarse[faces].astype(np.float64)
    indices, weights = [], []
    for rows in np.array_split(fine.astype(np.float64), 1 + len(fine) * len(faces) // CHUNK):
        pairs = np.tile(corners, (len(rows), 1, 1))
        points = np.repeat(rows, len(faces), axis=0)
        nearest = library.closest_point(pairs, points)
        best = ((nearest - points) ** 2).sum(axis=-1).reshape(len(rows), -1).argmin(axis=1)
        chosen = nearest.reshape(len(rows), -1, 3)[np.arange(len(rows)), best]
        own = np.clip(library.points_to_barycentric(corners[best], chosen), 0, 1)
        indices.append(faces[best])
        weights.append(own / own.sum(axis=1, keepdims=True))
    return np.concatenate(indices).astype(np.int32), np.concatenate(weights).astype(np.float32)


def _pack(array):
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")
    return [array.dtype.str, list(array.shape), packed]


def _unpack(dtype, shape, packed):
    """The array that `_pack` wrote. No more is unpacked than its shape asks for, nor of another type."""
    size = math.prod(int(side) for side in shape) * 4
    if dtype not in ("<f4", "<i4") or not 0 <= size <= LARGEST_ARRAY:
        raise ValueError(f"an array of type {dtype!r} and shape {shape}")
    content = zlib.decompressobj().decompress(base64.b64decode(packed), size + 1)
    return np.frombuffer(content, dtype).reshape(shape)


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
        return _weighted_sum(inputs, self.indices, self.factors)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (len(self.indices), *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "indices": self.indices.tolist(), "weights": self.factors.tolist()}


def _weighted_sum(inputs, indices, factors):
    """Sums of a few vertices each, by `indices` and `factors` `[V, D]`: `[..., M, C]` to `[V, M, C]`."""
    total = 0.0
    for places, weights in zip(indices.T, factors.T, strict=True):
        weights = ops.convert_to_tensor(weights[:, None, None], inputs.dtype)
        total = total + weights * ops.take(inputs, ops.convert_to_tensor(places, "int32"), axis=0)
    return total


SHAPE_SCALE = 0.1  # of a face's size: what an output of 1 moves a vertex by
SKIN = (0.30, -0.05, -0.30)  # the logits of the mean face's color, RGB


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshDecoder(keras.layers.Layer):
    """Shape and texture of a face, jointly, from their parameters (arXiv 1905.00641, section 3.3; 1904.03525).

    A dense layer fills the coarsest level of the mesh; then, level by level, barycentric up-sampling and a Chebyshev
    convolution with an ELU, and a last convolution to six numbers a vertex: a displacement from the mean face and a
    color. Parameters of 0 are the mean face, whatever has been learned of the others, up to the biases.

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

    `L = -D^(-1/2) A D^(-1/2)` is the mesh graph's normalized Laplacian `I - D^(-1/2) A D^(-1/2)`, whose eigenvalues lie
    in [0, 2], moved to [-1, 1]; `T_k` are Chebyshev's polynomials, `T_0 = 1`, `T_1 = L`,
    `T_k = 2 L T_(k-1) - T_(k-2)`. A filter of order K sees neighbors up to K - 1 edges away.

    `L x` is written as gathers, one for each place in a list of neighbors: no sparse operations, which TFLite and ONNX
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
        self.neighbors, self.factors = laplacian_rows(self.triangles, num_vertices)

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
        return _weighted_sum(inputs, self.neighbors, self.factors)

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


def laplacian_rows(triangles, num_vertices):
    """The rows of `L`, moved as in `ChebyshevConv`, without their zeros.

    Returns:
        (int32 `[V, D]`, float32 `[V, D]`): columns and values, D the most neighbors that a vertex has. Rows with fewer
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
