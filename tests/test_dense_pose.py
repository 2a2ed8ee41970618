"""Head pose: signs that a person can check, and angles back from faces turned by known ones."""

import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf.dense.pose import (
    MEAN_LANDMARKS,
    angles_of,
    pose_from_landmarks,
    pose_from_vertices,
    rotation_matrix,
    to_camera,
)

STRAIGHT_AHEAD, LEFT_TO_RIGHT = np.array([0, 0, -1]), np.array([1, 0, 0])
ANGLES = np.random.default_rng(0).uniform([-60, -35, -50], [60, 35, 50], (20, 3))


@pytest.mark.parametrize(
    ("angles", "gaze", "eyes"),
    [
        ([0, 0, 0], [0, 0, -1], [1, 0, 0]),
        ([30, 0, 0], [0.5, 0, -(0.75**0.5)], None),  # yaw: to the right of the image
        ([0, 30, 0], [0, -0.5, -(0.75**0.5)], [1, 0, 0]),  # pitch: up, where y is smaller
        ([0, 0, 30], [0, 0, -1], [0.75**0.5, 0.5, 0]),  # roll: the eye on the right sinks
    ],
)
def test_signs(angles, gaze, eyes):
    rotation = rotation_matrix(angles)
    np.testing.assert_allclose(rotation @ STRAIGHT_AHEAD, gaze, atol=1e-12)
    if eyes is not None:
        np.testing.assert_allclose(rotation @ LEFT_TO_RIGHT, eyes, atol=1e-12)


def test_angles_there_and_back():
    np.testing.assert_allclose(angles_of(rotation_matrix(ANGLES)), ANGLES, atol=1e-4)


def test_a_turned_face_tells_its_pose():
    topology = small_topology()
    vertices = 40 * to_camera(topology.vertices) @ np.swapaxes(rotation_matrix(ANGLES), 1, 2) + [300, 200, 0]
    np.testing.assert_allclose(pose_from_vertices(vertices, topology.vertices), ANGLES, atol=1e-3)


def test_five_landmarks_of_a_turned_face_tell_its_pose():
    landmarks = (25 * MEAN_LANDMARKS @ np.swapaxes(rotation_matrix(ANGLES), 1, 2))[..., :2] + [300, 200]
    np.testing.assert_allclose(pose_from_landmarks(landmarks), ANGLES, atol=0.01)


def test_a_pixel_of_noise_on_a_face_of_200_turns_it_by_few_degrees():
    landmarks = (25 * MEAN_LANDMARKS @ np.swapaxes(rotation_matrix(ANGLES), 1, 2))[..., :2]
    noisy = landmarks + np.random.default_rng(1).normal(0, 1, landmarks.shape)
    assert np.abs(pose_from_landmarks(noisy) - ANGLES).max() < 5


def test_an_astronaut_looks_at_the_camera_with_her_head_bowed(bundled_model, sample_photo):
    yaw, pitch, roll = bundled_model.detect(sample_photo, close_ups=False).head_poses()[0]
    assert abs(yaw) < 5 and -25 < pitch < -10 and abs(roll) < 8


def test_no_faces_have_no_poses_and_a_point_has_some():
    assert pose_from_landmarks(np.zeros((0, 5, 2))).shape == (0, 3)
    assert pose_from_vertices(np.zeros((0, 9, 3)), small_topology().vertices).shape == (0, 3)
    assert np.isfinite(pose_from_landmarks(np.full((1, 5, 2), 7.0))).all()
