"""Fit a topology to landmarks: rotate, scale and slightly deform a face so that its landmarks match.

No scans are needed for the ways in which a face may differ from the mean one: they come from the mesh alone. Two modes
stretch the mean face in height and in depth against its width. The others are the eigenvectors of the mesh's graph
Laplacian with the lowest eigenvalues: the smoothest functions on the mesh (Taubin, "A signal processing approach to
fair surface design", 1995), each applied to x, y and z. Of these only the combinations that keep the face symmetric are
taken. How far a mode may go falls with its eigenvalue, as the amplitudes of a smooth random field do, so that more
modes add detail and never freedom at large.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.dense.pose import fit_camera, to_camera

with tensorflow_needed("fitting faces"):
    from scipy.linalg import eigh
    from scipy.optimize import least_squares
    from scipy.sparse import coo_matrix, csgraph
    from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology

LANDMARK_NOISE = 0.02  # standard deviation of a labeled landmark, as a part of the face's size
SETTLED = 1e-4  # relative change of the sum or of the parameters below which a fit is done


class Fit(NamedTuple):
    """A fitted face.

    Attributes:
        vertices: float32 `[V, 3]`: x and y in pixels of the photo, z in pixels away from the camera, 0 at their mean.
        residual: float. Root mean square distance of the landmarks from where they were labeled, as a part of the
            face's size, the root of the fitted vertices' width times height.
        strain: float. Root mean square of the shape's coefficients, in standard deviations: 0 is the mean face.
    """

    vertices: np.ndarray
    residual: float
    strain: float


class FaceFitter:
    """Fits one topology to five or 68 landmarks: a weak-perspective camera and a small linear deformation.

    The sum that `scipy.optimize.least_squares` makes smallest is that of the squared landmark errors, in units of
    `LANDMARK_NOISE`, and of the squared coefficients of `modes.shape_model`: the most probable face. It starts at the
    mean face under the camera that fits it best.

    Args:
        topology: `Topology`, symmetric, that says where its landmarks are.
        smooth_modes: int, see `shape_model`.
    """

    def __init__(self, topology, smooth_modes=12):
        self.topology = topology
        self.model = shape_model(topology, smooth_modes)

    @cached_property
    def matrices(self):
        """What turns vertices into landmarks, by their number: dict of float `[L, V]`."""
        matrices = {5: self.topology.landmark_matrix.astype(np.float64)}
        if self.topology.points_68 is not None:
            matrices[68] = np.eye(len(self.topology))[list(self.topology.points_68)]
        return matrices

    @cached_property
    def _families(self):
        return {count: self.model.at(matrix) for count, matrix in self.matrices.items()}

    def __call__(self, landmarks, weights=None):
        """Fit one face.

        Args:
            landmarks: `[L, 2]`, x and y in pixels; L is 5, in a detection's order, or 68 in iBUG's.
            weights: `[L]`, 0 for a landmark that is not labeled; `None` for 1. At least four must count.

        Returns:
            `Fit`, or `None` where there is no face in the landmarks: too few, or all in one place.

        Raises:
            ValueError: the topology doesn't say where so many landmarks are.
        """
        points = np.asarray(landmarks, np.float64)
        if len(points) not in self._families:
            raise ValueError(f"the topology knows {list(self._families)} landmarks. Received: {len(points)} of them")
        weights = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
        known = weights > 0
        if known.sum() < 4 or not np.isfinite(points[known]).all() or np.ptp(points[known], axis=0).max() < 1:
            return None
        family = self._families[len(points)]
        mean, modes = family.mean[known], family.modes[:, known]
        points, noise = points[known], (LANDMARK_NOISE / np.sqrt(weights[known]))[:, None]
        scale, rotation, shift = fit_camera(points, mean)

        def unpack(values):
            turned = Rotation.from_rotvec(values[:3]).as_matrix() @ rotation
            return turned, scale * np.exp(values[3]), shift + scale * values[4:6], values[6:]

        def residuals(values):
            turned, size, place, coefficients = unpack(values)
            shape = mean + np.tensordot(coefficients, modes, 1)
            error = (size * shape @ turned.T[:, :2] + place - points) / scale
            return np.concatenate([(error / noise).ravel(), coefficients])

        def jacobian(values):
            turned, size, _, coefficients = unpack(values)
            seen = size / scale * (mean + np.tensordot(coefficients, modes, 1)) @ turned.T
            columns = np.zeros((len(values), *seen.shape))
            columns[:3] = np.cross(_left_jacobian(values[:3]).T[:, None], seen[None])
            columns[3] = seen
            columns[[4, 5], :, [0, 1]] = 1
            columns[6:] = size / scale * modes @ turned.T
            rows = (columns[..., :2] / noise).reshape(len(values), -1).T
            return np.concatenate([rows, np.eye(len(values))[6:]])

        start = np.zeros(6 + len(modes))
        found = least_squares(residuals, start, jacobian, method="lm", ftol=SETTLED, xtol=SETTLED)
        turned, size, place, coefficients = unpack(found.x)
        shape = self.model.mean + np.tensordot(coefficients, self.model.modes, 1)
        vertices = size * shape @ turned.T
        vertices[:, :2] += place
        vertices[:, 2] -= vertices[:, 2].mean()
        fitted = self.matrices[len(known)][known] @ vertices[:, :2]
        face_size = np.sqrt(np.prod(np.ptp(vertices[:, :2], axis=0)))
        residual = np.sqrt(((fitted - points) ** 2).sum(axis=1).mean()) / face_size
        strain = np.sqrt((coefficients**2).mean()) if len(coefficients) else 0.0
        return Fit(vertices.astype(np.float32), float(residual), float(strain))


def _left_jacobian(vector):
    """By what rotation the rotation of a vector changes when the vector does: `[3]` -> `[3, 3]` (Sola, 1812.01537)."""
    angle = np.linalg.norm(vector)
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-6:
        return np.eye(3) + cross / 2
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * cross @ cross


STRETCH = 0.08  # standard deviation of the stretching modes, as a part of each coordinate
BEND = 0.02  # standard deviation of the smoothest other mode, as a part of the face's size


class ShapeModel(NamedTuple):
    """The linear family of faces: `mean + coefficients @ modes`, coefficients standard normal.

    Attributes:
        mean: float64 `[V, 3]`, in the space of predictions (x right, y down, z away), centered, of size 1: the root of
            width times height.
        modes: float64 `[M, V, 3]`, each as large as one standard deviation.
    """

    mean: np.ndarray
    modes: np.ndarray

    def at(self, matrix: np.ndarray) -> Any:
        """The same family of weighted means of vertices, such as landmarks: `matrix` `[L, V]`."""
        return ShapeModel(matrix @ self.mean, matrix @ self.modes)


def shape_model(topology: Topology, smooth_modes: int = 12) -> ShapeModel:
    """The family of faces of a symmetric topology.

    `smooth_modes` is the number of eigenvectors of the Laplacian, the constant one aside; 0 leaves the two stretches.
    There are at most `2 + 3 * smooth_modes` modes: the symmetric half of them.
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
    size, edges = len(topology), topology.edges
    adjacency = coo_matrix((np.ones(len(edges)), edges.T), (size, size))
    laplacian = csgraph.laplacian((adjacency + adjacency.T).tocsr(), normed=False).toarray()
    count = min(count, size - 1)
    values, vectors = eigh(laplacian, subset_by_index=[0, count])
    kept = values > 1e-9
    return values[kept], vectors.T[kept] * np.sqrt(size)
