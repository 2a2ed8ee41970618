"""What `detect --obj`, `--pose` and pictures make of faces with vertices, without a network."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf.cli import detect, photo_work
from retinaface_tf.cli.photo_work import _save_pictures
from retinaface_tf.dense.pose import MEAN_LANDMARKS, rotation_matrix, to_camera
from retinaface_tf.image.drawing import MESH_COLOUR, draw
from retinaface_tf.inference import report
from retinaface_tf.inference.detections import Detections

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
    args = Namespace(output=str(tmp_path), no_pictures=True, crops=False, obj=True, blur=False)
    assert _save_pictures(args, tmp_path / "in" / "a.jpg", IMAGE, faces()) is None
    assert sorted(path.name for path in (tmp_path / "obj" / "in").iterdir()) == ["a_0.mtl", "a_0.obj", "a_0.png"]


def test_obj_with_a_plain_model_is_one_line_before_any_photo(monkeypatch):
    monkeypatch.setattr(photo_work, "load_model", lambda args: Namespace(topology=None))
    args = Namespace(obj=True, model=None, preset="mobilenet025_wider")
    with pytest.raises(ValueError, match="--obj needs a model with a dense branch, which mobilenet025_wider has not"):
        next(photo_work.work(args, [(Path("a.jpg"), None)], {}))


def test_obj_needs_a_folder():
    args = Namespace(json=None, csv=None, crops=False, blur=False, obj=True, output=None, resume=False)
    with pytest.raises(ValueError, match="--obj needs a folder for its files"):
        detect._report_paths(args)


def test_pictures_show_the_mesh():
    colours = np.asarray(draw(IMAGE, faces())).reshape(-1, 3)
    assert (colours == MESH_COLOUR).all(axis=1).sum() > 100
    assert not (np.asarray(draw(IMAGE, faces(False))) == MESH_COLOUR).all(axis=-1).any()
