"""A face as OBJ: the mesh as it was, its skin from the right place of the photo."""

import numpy as np
import pytest
from faces_3d import TRIANGLES, small_topology
from PIL import Image

from retinaface_tf.dense.pose import to_camera
from retinaface_tf.dense.texture import rasterize, unroll, write_obj
from retinaface_tf.dense.topology import Topology

VERTICES = 20 * to_camera(small_topology().vertices) + [100, 110, 0]


def photo():
    """Red grows to the right, green downwards: a color says where it is from."""
    y, x = np.mgrid[:200, :200]
    return np.stack([x, y, np.full_like(x, 50)], axis=-1).astype(np.uint8)


def test_a_pixel_of_the_nearer_triangle_wins():
    points = np.array([[0.0, 0], [4, 0], [0, 4]])
    index, weights = rasterize(np.concatenate([points, points]), [[0, 1, 2], [3, 4, 5]], 4, 4, np.repeat([2.0, 1.0], 3))
    assert index.tolist() == [[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]]
    np.testing.assert_allclose(weights[0, 0], [0.75, 0.125, 0.125])  # the middle of the first pixel


def test_rasterising_equals_a_look_at_every_pixel_and_triangle():
    random = np.random.default_rng(0)
    points, depth = random.uniform(-6, 22, (30, 2)), np.round(random.normal(size=30))
    triangles = random.integers(0, 30, (40, 3))  # beyond the image, one behind the other, some without an area
    triangles[-1] = triangles[0]  # as near as another: the first wins
    for far in (depth, None):
        index, weights = rasterize(points, triangles, 12, 16, far)
        assert index.shape == (12, 16) and (index >= 0).any()
        for (y, x), found in np.ndenumerate(index):
            best, expected, chosen = np.inf, -1, np.zeros(3)
            for number, corners in enumerate(triangles):
                matrix = np.concatenate([points[corners].T, np.ones((1, 3))])
                if abs(np.linalg.det(matrix)) < 1e-12:
                    continue
                parts = np.linalg.solve(matrix, [x + 0.5, y + 0.5, 1])
                distance = 0.0 if far is None else parts @ far[corners]
                if parts.min() >= 0 and distance < best - 1e-12:
                    best, expected, chosen = distance, number, parts
            assert found == expected, (x, y)
            np.testing.assert_allclose(weights[y, x], chosen, atol=1e-9)


def test_each_vertex_has_the_color_of_its_place_in_the_photo():
    topology = small_topology()
    texture, uv = unroll(photo(), VERTICES, topology, 256)
    for vertex in (4, 0, 7):
        x, y = uv[vertex] * [256, -256] + [0, 256]
        found = texture[min(int(y), 255), min(int(x), 255), :2]
        np.testing.assert_allclose(found, VERTICES[vertex, :2], atol=2)


def test_without_uv_the_face_is_unrolled_from_the_front():
    topology = small_topology()
    texture, uv = unroll(photo(), VERTICES, Topology(topology.vertices, topology.triangles), 64)
    assert texture.shape == (64, 64, 3) and uv.min() >= 0 and uv.max() <= 1
    assert uv[0, 0] < uv[2, 0] and uv[8, 1] > uv[6, 1]


def test_what_is_written_is_a_face_that_can_be_read_again(tmp_path):
    write_obj(tmp_path / "face.obj", VERTICES, small_topology(), photo(), texture_size=64)
    again = Topology.load(tmp_path / "face.obj")
    assert again.triangles.tolist() == TRIANGLES and again.uv is not None
    expected = 20 * (small_topology().vertices - small_topology().vertices.mean(axis=0))
    np.testing.assert_allclose(again.vertices, expected, atol=1e-3)
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text()
    assert Image.open(tmp_path / "face.png").size == (64, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.mtl", "face.obj", "face.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_mark_or_utf_16_costs_no_vertex(encoding, tmp_path):
    text = "v -1 0 0\nv 1 0 0\nv 0 1 0.5\nv 0 -1 0.5\nf -1 -2 -3\n"  # counted from the end: no error would tell
    (tmp_path / "face.obj").write_bytes(text.encode(encoding))
    assert Topology.load(tmp_path / "face.obj").vertices[0].tolist() == [-1, 0, 0]


def test_a_folder_that_takes_no_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_obj(tmp_path / "file" / "face.obj", VERTICES, small_topology(), photo(), texture_size=8)
