"""A face of the topology, turned, scaled and slightly bent, so that its landmarks fall on those of a photo."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.dense.modes import shape_model
from retinaface_tf.dense.pose import fit_camera

with tensorflow_needed("fitting faces"):
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

LANDMARK_NOISE = 0.02  # standard deviation of a labelled landmark, as a part of the face's size
SETTLED = 1e-4  # relative change of the sum or of the parameters below which a fit is done


class Fit(NamedTuple):
    """A fitted face.

    Attributes:
        vertices: float32 `[V, 3]`: x and y in pixels of the photo, z in pixels away from the camera, 0 at their mean.
        residual: float. Root mean square distance of the landmarks from where they were labelled, as a part of the
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
            weights: `[L]`, 0 for a landmark that is not labelled; `None` for 1. At least four must count.

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
