"""In which ways may a face differ from the mean one? A few, smooth and symmetric, out of the mesh alone.

No scans are needed. Two modes stretch the mean face in height and in depth against its width. The others are the
eigenvectors of the mesh's graph Laplacian with the lowest eigenvalues: the smoothest functions that there are on the
mesh (Taubin, "A signal processing approach to fair surface design", 1995), each applied to x, y and z. Of these only
the combinations that keep the face symmetric are taken. How far a mode may go falls with its eigenvalue, as the
amplitudes of a smooth random field do, so that more modes add detail and never freedom at large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.dense.pose import to_camera

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology


STRETCH = 0.08  # standard deviation of the stretching modes, as a part of each coordinate
BEND = 0.02  # standard deviation of the smoothest other mode, as a part of the face's size


class ShapeModel(NamedTuple):
    """The linear family of faces: `mean + coefficients @ modes`, coefficients standard normal.

    Attributes:
        mean: float64 `[V, 3]`, in the space of predictions (x right, y down, z away), centred, of size 1: the root of
            width times height.
        modes: float64 `[M, V, 3]`, each as large as one standard deviation.
    """

    mean: np.ndarray
    modes: np.ndarray

    def at(self, matrix: np.ndarray) -> Any:
        """The same family of weighted means of vertices, such as landmarks: `matrix` `[L, V]`."""
        return ShapeModel(matrix @ self.mean, matrix @ self.modes)


def shape_model(topology: Topology, smooth_modes: int = 12) -> ShapeModel:
    """The family of faces of a topology.

    Args:
        topology: `Topology`, symmetric.
        smooth_modes: int. How many eigenvectors of the Laplacian, the constant one aside; 0 leaves the two stretches.

    Returns:
        `ShapeModel` with at most `2 + 3 * smooth_modes` modes: the symmetric half of them.
    """
    mean = to_camera(topology.vertices.astype(np.float64))
    mean = mean - (mean.max(axis=0) + mean.min(axis=0)) / 2
    mean /= np.sqrt(np.prod(np.ptp(mean[:, :2], axis=0)))
    modes = [STRETCH * mean * axis for axis in ([0, 1, 0], [0, 0, 1])]
    values, functions = _smoothest(topology, smooth_modes)
    for value, function in zip(values, functions, strict=True):
        mirrored = function[topology.mirror]
        odd, even = (function - mirrored) / 2, (function + mirrored) / 2
        for part, axes in ((odd, [0]), (even, [1, 2])):
            size = np.sqrt((part**2).mean())
            if size > 0.5:  # of 1: eigenvectors of a symmetric mesh are odd or even, or can be mixed so
                for axis in axes:
                    mode = np.zeros_like(mean)
                    mode[:, axis] = BEND * np.sqrt(values[0] / value) * part / size
                    modes.append(mode)
    return ShapeModel(mean, np.array(modes))


def _smoothest(topology, count):
    """Eigenvalues `[K]`, ascending, above 0, and eigenvectors `[K, V]`, root mean square 1, of the graph Laplacian."""
    with tensorflow_needed("fitting faces"):
        from scipy.linalg import eigh
        from scipy.sparse import coo_matrix, csgraph
    size, edges = len(topology), topology.edges
    adjacency = coo_matrix((np.ones(len(edges)), edges.T), (size, size))
    laplacian = csgraph.laplacian((adjacency + adjacency.T).tocsr(), normed=False).toarray()
    count = min(count, size - 1)
    values, vectors = eigh(laplacian, subset_by_index=[0, count])
    kept = values > 1e-9
    return values[kept], vectors.T[kept] * np.sqrt(size)
