"""A mesh at several resolutions, and the operators between them, along which a mesh decoder builds a face."""

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

    Returns:
        `MeshHierarchy`.

    Raises:
        ImportError: without fast-simplification or trimesh, naming the extra.
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
        raise ImportError(f"simplifying a mesh needs more ({error}): {install_hint('mesh')}") from None
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
        total = 0.0
        for places, factors in zip(self.indices.T, self.factors.T, strict=True):
            factors = ops.convert_to_tensor(factors[:, None, None], inputs.dtype)
            total = total + factors * ops.take(inputs, ops.convert_to_tensor(places, "int32"), axis=0)
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (len(self.indices), *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "indices": self.indices.tolist(), "weights": self.factors.tolist()}
