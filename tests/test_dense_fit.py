"""A face fitted to landmarks: found again where it was made, and known to be bad where it is."""

import csv

import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf.dense.fit import FaceFitter, shape_model
from retinaface_tf.dense.pose import pose_from_vertices, rotation_matrix
from retinaface_tf.dense.topology import Topology


@pytest.fixture(scope="module")
def fitter():
    return FaceFitter(small_topology(), smooth_modes=4)


def turned(fitter, angles, coefficients=0.0, scale=80.0):
    shape = fitter.model.mean + np.tensordot(
        np.broadcast_to(coefficients, len(fitter.model.modes)), fitter.model.modes, 1
    )
    return scale * shape @ rotation_matrix(angles).T + [300, 200, 0]


def test_modes_are_symmetric_and_of_the_size_that_they_should_have(fitter):
    topology, model = fitter.topology, fitter.model
    mirrored = model.modes[:, topology.mirror] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, model.modes, atol=1e-9)
    np.testing.assert_allclose(model.modes[0], 0.08 * model.mean * [0, 1, 0])  # taller by 8 %
    np.testing.assert_allclose(model.mean[topology.mirror] * [-1, 1, 1], model.mean, atol=1e-9)
    np.testing.assert_allclose(np.prod(np.ptp(model.mean[:, :2], axis=0)), 1)
    assert len(shape_model(topology, smooth_modes=0).modes) == 2


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, -10, 20), (-40, 15, -35)])
def test_the_mean_face_is_found_again(fitter, angles):
    truth = turned(fitter, angles)
    fit = fitter((fitter.matrices[5] @ truth)[:, :2])
    np.testing.assert_allclose(fit.vertices[:, :2], truth[:, :2], atol=0.05)
    np.testing.assert_allclose(fit.vertices[:, 2], truth[:, 2] - truth[:, 2].mean(), atol=0.05)
    np.testing.assert_allclose(pose_from_vertices(fit.vertices[None], fitter.topology.vertices)[0], angles, atol=0.1)
    assert fit.residual < 1e-3 and fit.strain < 1e-2


def test_a_face_that_differs_bends_the_mesh_and_leaves_less_error_than_the_mean_face(fitter):
    landmarks = (fitter.matrices[5] @ turned(fitter, (10, 5, 0), 1.5))[:, :2]
    bent, stiff = fitter(landmarks), FaceFitter(fitter.topology, smooth_modes=0)(landmarks)
    assert bent.residual < 0.5 * stiff.residual and 0.1 < bent.strain < 2


def test_landmarks_that_are_no_face_leave_a_residual(fitter):
    landmarks = (fitter.matrices[5] @ turned(fitter, (0, 0, 0)))[:, :2]
    assert fitter(landmarks[[0, 3, 2, 1, 4]]).residual > 0.05  # an eye where a corner of the mouth should be


def test_a_hidden_landmark_does_not_count(fitter):
    truth = turned(fitter, (20, 0, 0))
    landmarks = (fitter.matrices[5] @ truth)[:, :2]
    landmarks[1] = 0
    fit = fitter(landmarks, [1, 0, 1, 1, 1])
    np.testing.assert_allclose(fit.vertices[:, :2], truth[:, :2], atol=0.5)
    assert fitter(landmarks, [1, 0, 0, 1, 1]) is None  # three points are any face
    assert fitter(np.full((5, 2), 9.0)) is None


def test_68_points_need_a_topology_that_knows_them(fitter):
    with pytest.raises(ValueError, match=r"knows \[5\] landmarks"):
        fitter(np.zeros((68, 2)))


def test_real_faces_fit_within_two_percent_of_their_size(development_data):
    fitter = FaceFitter(Topology.load(development_data / "face_topology" / "canonical_face_model.obj"))
    with (development_data / "point_faces" / "landmarks.csv").open() as lines:
        rows = list(csv.reader(lines))[1::100]
    fits = [fitter(np.array(row[1:11], float).reshape(5, 2)) for row in rows]
    assert np.median([fit.residual for fit in fits]) < 0.01
    assert max(fit.residual for fit in fits) < 0.03
    poses = pose_from_vertices(np.stack([fit.vertices for fit in fits]), fitter.topology.vertices)
    assert abs(np.median(poses[:, 1])) < 5  # with the nose of 300-W's points, people would look down by 9 degrees


def test_68_points_give_the_canonical_face_back(development_data):
    fitter = FaceFitter(Topology.load(development_data / "face_topology" / "canonical_face_model.obj"))
    truth = turned(fitter, (25, -10, 5), 0.5, scale=200)
    fit = fitter((fitter.matrices[68] @ truth)[:, :2])
    assert np.linalg.norm(fit.vertices[:, :2] - truth[:, :2], axis=1).max() < 6  # of 200 pixels
