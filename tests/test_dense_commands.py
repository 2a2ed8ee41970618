"""What `detect --obj`, `--pose` and pictures make of faces with vertices, without a network."""

import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf.cli.main import main
from retinaface_tf.dense.pose import MEAN_LANDMARKS, rotation_matrix, to_camera
from retinaface_tf.image.drawing import MESH_COLOR, draw
from retinaface_tf.inference import report
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.photos import Outputs

IMAGE = np.full((160, 160, 3), 90, np.uint8)
TURN = rotation_matrix([20, -10, 5])


def faces(vertices=True):
    """One face, its head turned: by its vertices and by its landmarks alike."""
    topology = small_topology()
    mesh = (12 * to_camera(topology.vertices) @ TURN.T + [80, 80, 0]).astype(np.float32)
    landmarks = ((8 * MEAN_LANDMARKS @ TURN.T)[:, :2] + 80).astype(np.float32)
    dense = {"vertices": mesh[None], "topology": topology} if vertices else {}
    box = np.array([[40, 30, 120, 120]], np.float32)
    return Detections(box, np.array([0.9], np.float32), landmarks[None], 160, 160, **dense)


@pytest.mark.parametrize("vertices", [True, False])
def test_a_report_has_head_poses_where_they_are_wanted(vertices):
    (face,) = report.entry("a.jpg", faces(vertices), pose=True)["faces"]
    np.testing.assert_allclose(face["head_pose"], [20, -10, 5], atol=0.05)
    assert "head_pose" not in report.entry("a.jpg", faces(vertices))["faces"][0]


def test_objs_go_beside_the_pictures(tmp_path):
    outputs = Outputs(tmp_path, picture=False, obj=True)
    written = outputs.save(IMAGE, faces(), tmp_path / "in" / "a.jpg")
    assert written == {"obj": [str(tmp_path / "obj" / "in" / "a_0.obj")]}
    assert sorted(path.name for path in (tmp_path / "obj" / "in").iterdir()) == ["a_0.mtl", "a_0.obj", "a_0.png"]


def test_obj_with_a_plain_model_is_one_line_before_any_photo(tmp_path, one_model, sample_photo, capsys):
    assert main(["detect", str(sample_photo), "--obj", "--output", str(tmp_path)]) == 2
    assert "--obj needs a model with a dense branch, and mobilenet025_wider has none" in capsys.readouterr().err


def test_obj_needs_a_folder(sample_photo, capsys):
    assert main(["detect", str(sample_photo), "--obj"]) == 2
    assert "--obj needs a folder for its files" in capsys.readouterr().err


def test_pictures_show_the_mesh():
    colors = np.asarray(draw(IMAGE, faces())).reshape(-1, 3)
    assert (colors == MESH_COLOR).all(axis=1).sum() > 100
    assert not (np.asarray(draw(IMAGE, faces(False))) == MESH_COLOR).all(axis=-1).any()
