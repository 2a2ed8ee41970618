"""A topology: read, refused, mirrored, written as plain numbers and read again."""

import io
import json
import tarfile

import numpy as np
import pytest
from faces_3d import TRIANGLES, VERTICES, small_topology

from retinaface_tf.dense.topology import Topology

SQUARE = "v -1 0 0\nv 1 0 0\nv 1 2 0\nv -1 2 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n"


def test_a_square_is_two_triangles_with_five_edges(tmp_path):
    (tmp_path / "square.obj").write_text(SQUARE)
    square = Topology.load(tmp_path / "square.obj")
    assert square.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert square.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert square.mirror.tolist() == [1, 0, 3, 2]
    assert square.uv.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_an_archive_is_searched_for_its_face(tmp_path):
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for name, text in (("package/README", "no"), ("package/a/face.obj", SQUARE), ("package/chair.obj", "v 0 0 0")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    assert len(Topology.load(tmp_path / "package.tgz")) == 4


def test_landmarks_come_from_the_file_beside(tmp_path):
    (tmp_path / "square.obj").write_text(SQUARE)
    (tmp_path / "square.landmarks.json").write_text(json.dumps({"landmarks": [[0], [1], [0, 1, 2, 3], [3], [2]]}))
    topology = Topology.load(tmp_path / "square.obj")
    assert topology.landmark_matrix.tolist()[2] == [0.25, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(
        topology.landmark_matrix @ topology.vertices, [[-1, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 2, 0], [1, 2, 0]]
    )


def test_plain_numbers_there_and_back():
    topology = small_topology()
    again = Topology.from_dict(json.loads(json.dumps(topology.to_dict())))
    assert again.vertices.tolist() == VERTICES and again.triangles.tolist() == TRIANGLES
    assert again.landmarks == ((0,), (2,), (4,), (6,), (7,)) and again.points_68 is None
    np.testing.assert_allclose(again.uv, topology.uv, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("face.stl", "", "must be an .obj file or an archive"),
        ("face.obj", "v 0 0 0\nf 1 2 3\n", r"line 2 is not Wavefront OBJ \(index 2 of 1\)"),
        ("face.obj", "v 0 0 zero\n", "line 1 is not Wavefront OBJ"),
        ("face.obj", "hello\n", "no triangles"),
        ("face.tgz", "hello", "the archive can't be opened"),
    ],
)
def test_what_is_no_topology_is_said_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        Topology.load(tmp_path / name)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_crooked_mesh_has_no_mirror_and_a_bare_one_no_landmarks():
    topology = Topology([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    with pytest.raises(ValueError, match="symmetric about x = 0"):
        _ = topology.mirror
    with pytest.raises(ValueError, match="which vertices are its landmarks"):
        _ = topology.landmark_matrix


def test_the_canonical_face(development_data):
    topology = Topology.load(development_data / "face_topology" / "canonical_face_model.obj")
    assert (len(topology), len(topology.triangles), len(topology.edges)) == (468, 898, 1365)
    assert topology.mirror[33] == 263 and topology.mirror[4] == 4
    left, right, nose, left_mouth, right_mouth = topology.landmark_matrix @ topology.vertices
    assert left[0] < 0 < right[0] and left[1] == right[1] > nose[1] > left_mouth[1] == right_mouth[1]
    assert nose[0] == 0 and nose[2] > 0.95 * topology.vertices[:, 2].max()
    points = topology.vertices[list(topology.points_68)]
    assert points[36, 0] == -points[45, 0] and points[8, 0] == 0  # outer corners of the eyes; the chin


def test_a_topology_is_bounded_before_it_takes_memory():
    """Tables of pairs of 40,000 vertices would take 36 GB."""
    vertices = np.array([[i % 200, i // 200, 0] for i in range(40_000)])
    with pytest.raises(ValueError, match=r"V from 3 to 10000. Received: \(40000, 3\)|3 <= V <= 10000"):
        Topology(vertices, [[0, 1, 2]])
    for wrong, message in (
        ([[0, 0, 0], [1e30, 0, 0], [0, 1, 0]], "numbers of at most 1e\\+06"),
        ([[0, 0, 0], [0, 1, 0], [0, 2, 0]], "a width"),
    ):
        with pytest.raises(ValueError, match=message):
            Topology(np.array(wrong), [[0, 1, 2]])
    for parts in ({"vertexes": 1}, {"vertices": None, "triangles": None}):
        with pytest.raises(ValueError, match="not a topology"):
            Topology.from_dict(parts)
