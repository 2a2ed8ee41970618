"""Head pose: yaw, pitch and roll from vertices, or from five landmarks.

Angles are in degrees, all 0 for a face that looks straight at the camera with its eyes level, as the viewer sees it:

- yaw above 0: it looks to the right of the image (its own left).
- pitch above 0: it looks up.
- roll above 0: its head is tilted clockwise in the image.

Space is that of predicted vertices: x to the right of the image, y down, z away from the camera. The head's rotation is
`Rz(roll) Ry(-yaw) Rx(-pitch)`, right-handed about those axes: first nod, then turn, then tilt.

The numerics are SciPy's. OpenCV's `solvePnP` wants the camera's focal length, which nobody knows of a photo from the
web, and one more large wheel; the scaled orthographic camera here has none to guess.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retinaface_tf.common.imports import tensorflow_needed

with tensorflow_needed("head pose"):
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

# Mean of both lids, nose tip and corners of the mouth of MediaPipe's canonical face, in centimeters around their
# middle, in that space. It looks up by 17 degrees, so that 417 faces on the web, who look at the camera, have a pitch
# of 0 in the median: the landmark of the nose, as people label it, is lower than the mesh's.
MEAN_LANDMARKS = np.array(
    [
        [-3.16, -3.57, 0.02],
        [3.16, -3.57, 0.02],
        [0.0, 0.54, -2.87],
        [-2.46, 3.3, 1.41],
        [2.46, 3.3, 1.41],
    ]
)
SMALLEST_SCALE = 1e-9  # pixels to a unit of the model: what points that all coincide are given


def to_camera(vertices: np.ndarray) -> np.ndarray:
    """Vertices of a topology (y up, z to the viewer) in the space of predictions (y down, z away), and back."""
    vertices = np.asarray(vertices)
    return vertices * np.array([1, -1, -1], vertices.dtype)


def rotation_matrix(angles: ArrayLike) -> np.ndarray:
    """Yaw, pitch and roll to rotations: `[..., 3]` degrees -> float64 `[..., 3, 3]`."""
    angles = np.asarray(angles, np.float64)
    euler = (angles * [-1, -1, 1])[..., [2, 0, 1]].reshape(-1, 3)
    return Rotation.from_euler("ZYX", euler, degrees=True).as_matrix().reshape(*angles.shape[:-1], 3, 3)


def angles_of(rotations: Any) -> np.ndarray:
    """Rotations to yaw, pitch and roll: `[N, 3, 3]` -> float32 `[N, 3]` degrees; yaw within 90 of 0. N may be 0."""
    if not len(rotations):
        return np.zeros((0, 3), np.float32)
    roll, yaw, pitch = Rotation.from_matrix(rotations).as_euler("ZYX", degrees=True).T
    return np.stack([-yaw, -pitch, roll], axis=-1).astype(np.float32)


def pose_from_vertices(vertices: np.ndarray, mean: np.ndarray) -> Any:
    """Head pose by the rotation that best brings the mean face onto the predicted vertices (Kabsch, 1976).

    Args:
        vertices: `[N, V, 3]`, as detections have them; N may be 0.
        mean: `[V, 3]`, `Topology.vertices`.

    Returns:
        float32 `[N, 3]`: yaw, pitch and roll in degrees.
    """
    model = to_camera(np.asarray(mean, np.float64))
    model = model - model.mean(axis=0)
    vertices = np.asarray(vertices, np.float64)
    centered = vertices - vertices.mean(axis=-2, keepdims=True)
    return angles_of([Rotation.align_vectors(face, model)[0].as_matrix() for face in centered])


def pose_from_landmarks(landmarks: np.ndarray) -> Any:
    """Head pose of a mean face whose five landmarks, seen from far away, fall nearest to those given.

    Args:
        landmarks: `[N, 5, 2]`, x and y in pixels, in a detection's order; N may be 0.

    Returns:
        float32 `[N, 3]`: yaw, pitch and roll in degrees.
    """
    return angles_of([fit_camera(points, MEAN_LANDMARKS)[1] for points in np.asarray(landmarks, np.float64)])


def fit_camera(points: np.ndarray, model: np.ndarray) -> Any:
    """The scaled orthographic camera that sees a model's points nearest to where they are: least squares in the image.

    Args:
        points: `[L, 2]`, x and y.
        model: `[L, 3]`, in the space of predictions, not all in one plane.

    Returns:
        (scale, rotation float64 `[3, 3]`, shift float64 `[2]`): `scale * (model @ rotation.T)[:, :2] + shift` is near
        `points`.
    """
    center, middle = points.mean(axis=0), model.mean(axis=0)
    seen, shape = points - center, model - middle
    unit = max(np.sqrt((seen**2).mean()), SMALLEST_SCALE)
    rows = (np.linalg.pinv(shape) @ seen).T / unit  # the affine camera; a scaled one has orthogonal rows
    # Nearly flat models leave in doubt which side is nearer: both are tried.
    fits = [_refine(_rotation_of_rows(rows * side), seen / unit, shape) for side in ([1, 1, 1], [1, 1, -1])]
    _, scale, rotation = min(fits, key=lambda fit: fit[0])
    return scale * unit, rotation, center - scale * unit * (rotation @ middle)[:2]


def _rotation_of_rows(rows):
    """The rotation whose first two rows are nearest to two given ones."""
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    x, y = left @ right
    return np.stack([x, y, np.cross(x, y)])


def _refine(start, seen, shape):
    """(cost, scale, rotation) that least squares reaches from a rotation; the best scale follows from it."""

    def camera(vector):
        rotation = Rotation.from_rotvec(vector).as_matrix() @ start
        flat = (shape @ rotation.T)[:, :2]
        return max(np.vdot(flat, seen) / max(np.vdot(flat, flat), SMALLEST_SCALE), SMALLEST_SCALE), rotation, flat

    def residuals(vector):
        scale, _, flat = camera(vector)
        return (scale * flat - seen).ravel()

    fit = least_squares(residuals, np.zeros(3), method="lm")
    scale, rotation, _ = camera(fit.x)
    return fit.cost, scale, rotation
