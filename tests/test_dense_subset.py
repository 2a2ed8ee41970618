"""Fewer vertices: as many as asked for, left and right alike, landmarks where they were."""

import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf.dense.topology import Topology


def test_seven_of_nine_keep_the_landmarks_and_the_symmetry():
    topology = small_topology().subset(7)
    assert len(topology) == 7 and topology.mirror.tolist() == [2, 1, 0, 3, 5, 4, 6]
    whole = small_topology()
    np.testing.assert_array_equal(topology.landmark_matrix @ topology.vertices, whole.landmark_matrix @ whole.vertices)
    normals = np.cross(
        *(topology.vertices[topology.triangles[:, i]] - topology.vertices[topology.triangles[:, 0]] for i in (1, 2))
    )
    assert (normals[:, 2] > 0).all()  # all face the viewer


@pytest.mark.parametrize("count", [4, 10])
def test_too_few_or_too_many_are_refused(count):
    with pytest.raises(ValueError, match=f"from 5 vertices, those of the landmarks, to all 9. Received: {count}"):
        small_topology().subset(count)


def test_128_of_the_canonical_face(development_data):
    whole = Topology.load(development_data / "face_topology" / "canonical_face_model.obj")
    topology = whole.subset(128)
    assert len(topology) == 128 and len(topology.triangles) == 222 and topology.points_68 is not None
    assert len(np.unique(topology.triangles)) == 128 and (topology.mirror >= 0).all()
    np.testing.assert_allclose(
        topology.landmark_matrix @ topology.vertices, whole.landmark_matrix @ whole.vertices, atol=1e-5
    )
    assert topology.sha256 == whole.subset(128).sha256 != whole.sha256
