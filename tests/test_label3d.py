"""Labels for whole shards: bad fits dropped, residuals kept, resumed, refused where they don't fit."""

import json
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import wider_tree
from faces_3d import TRIANGLES, VERTICES, small_topology

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.cli.main import main
from retinaface_tf.data.example import parse_example
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.shards import ConvertOptions, write_shards
from retinaface_tf.dense.fit import FaceFitter
from retinaface_tf.dense.label3d import label_shards, require_labels, residual_percentiles
from retinaface_tf.dense.pose import rotation_matrix
from retinaface_tf.dense.topology import NUM_VERTICES, Topology
from retinaface_tf.dense.vertex_labels import vertex_fields
from retinaface_tf.dense.vertex_providers import FromFaceLandmarker, FromLandmarks, FromPoints

TOPOLOGY = small_topology()


def landmarks(angles, place):
    """Five landmarks of the mean face, 40 pixels in size."""
    fitter = FaceFitter(TOPOLOGY)
    return (fitter.matrices[5] @ (40 * fitter.model.mean @ rotation_matrix(angles).T))[:, :2] + place


GOOD, TURNED = landmarks((0, 0, 0), [60, 60]), landmarks((25, 10, -20), [60, 60])
SWAPPED = GOOD[[0, 3, 2, 1, 4]]  # an eye where a corner of the mouth should be


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards of four photos: good, turned, swapped, and one whose landmarks are not labeled."""
    folder = tmp_path_factory.mktemp("label3d")
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    wider_tree.make_photos(folder / "photos", names)
    box, seen = [[35, 30, 85, 90]], np.ones((1, 5))
    points = [GOOD, TURNED, SWAPPED, None]
    records = [
        annotate_photo(n, box, None if p is None else p[None], None if p is None else seen)
        for n, p in zip(names, points, strict=True)
    ]
    write_shards(
        join(records), folder / "photos", folder / "shards", ConvertOptions(2), source={"kind": "test"}, workers=1
    )
    return folder / "shards"


def label(shards, output, **more):
    return label_shards(shards, output, FromLandmarks(TOPOLOGY), workers=1, **more)


def faces_of(folder):
    parsed = [
        parse_example(one, vertex_fields(range(9)))
        for one in tf.data.TFRecordDataset([str(p) for p in open_shards(folder, verify=True)[1]])
    ]
    return {one["filename"].numpy().decode(): one for one in parsed}


def test_good_faces_are_labeled_and_bad_fits_dropped(shards, tmp_path):
    manifest = label(shards, tmp_path / "out")
    counts = manifest["counts"]
    assert (counts["faces"], counts["faces_fitted"], counts["faces_with_vertices"]) == (4, 3, 2)
    assert manifest["source"]["vertices"] == 9 and manifest["source"]["topology_sha256"] == TOPOLOGY.sha256
    faces = faces_of(tmp_path / "out")
    assert {name: one["vertices_labeled"].numpy().tolist() for name, one in faces.items()} == {
        **{"a.jpg": [1], "b.jpg": [1], "c.jpg": [0], "d.jpg": [0]}
    }
    for name, points in (("a.jpg", GOOD), ("b.jpg", TURNED)):
        found = TOPOLOGY.landmark_matrix @ faces[name]["vertices"][0].numpy()
        np.testing.assert_allclose(found[:, :2], points, atol=0.05)
    assert residual_percentiles(manifest, (50,))[0] <= 0.002


def test_residuals_are_kept_of_faces_without_label_too(shards, tmp_path):
    label(shards, tmp_path / "out")
    kept = {}
    for one in tf.data.TFRecordDataset([str(path) for path in open_shards(tmp_path / "out")[1]]):
        feature = tf.train.Example.FromString(one.numpy()).features.feature
        name = feature["image/filename"].bytes_list.value[0].decode()
        kept[name] = feature["image/object/vertices/residual"].float_list.value[0]
    assert kept["a.jpg"] < 0.002 and kept["c.jpg"] > 0.04 and kept["d.jpg"] == -1


def test_a_killed_run_goes_on_to_the_same_bytes(shards, tmp_path):
    label(shards, tmp_path / "whole")
    label(shards, tmp_path / "killed")
    first = min((tmp_path / "killed").glob("*.tfrecord"))
    (tmp_path / "killed" / f".{first.name}.99.tmp").write_bytes(b"half")
    first.unlink()
    seen = []
    label(shards, tmp_path / "killed", progress=seen.append)
    assert seen == [2, 2]
    whole, killed = ({p.name: p.read_bytes() for p in (tmp_path / k).iterdir()} for k in ("whole", "killed"))
    assert whole == killed


def test_other_options_or_the_same_folder_are_refused(shards, tmp_path):
    label(shards, tmp_path / "out")
    with pytest.raises(ValueError, match=r"made with max_residual=0\.04. Received: 0\.01"):
        label(shards, tmp_path / "out", max_residual=0.01)
    with pytest.raises(ValueError, match="another folder for the labeled shards"):
        label(shards, shards)


def test_a_dense_model_asks_for_labels_of_its_own_topology(shards, tmp_path):
    label(shards, tmp_path / "out")
    require_labels(open_shards(tmp_path / "out")[1], TOPOLOGY)
    with pytest.raises(ValueError, match="labeled with a topology of 9 vertices; the model has another one, of 7"):
        require_labels(open_shards(tmp_path / "out")[1], TOPOLOGY.subset(7))
    with pytest.raises(ValueError, match="no vertex labels for the dense branch"):
        require_labels(open_shards(shards)[1], TOPOLOGY)


def test_the_command(shards, tmp_path, capsys):
    text = [*(f"v {x} {y} {z}" for x, y, z in VERTICES), *("f {} {} {}".format(*np.add(t, 1)) for t in TRIANGLES)]
    (tmp_path / "face.obj").write_text("\n".join(text))
    words = [
        "label3d",
        str(shards),
        "--topology",
        str(tmp_path / "face.obj"),
        "--output",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert main([*words, "--workers", "1"]) == 2
    assert "which vertices are its landmarks" in capsys.readouterr().err
    (tmp_path / "face.landmarks.json").write_text(json.dumps({"landmarks": [[0], [2], [4], [6], [7]]}))
    assert main([*words, "--workers", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["faces_with_vertices"] == 2 and said["vertices"] == 9 and said["residual_median"] <= 0.002
    assert main([*words, "--workers", "0"]) == 2
    assert "--workers must be at least 1" in capsys.readouterr().err


def test_68_points_go_to_the_face_that_they_are_on(tmp_path):
    many = Topology(TOPOLOGY.vertices, TRIANGLES, landmarks=TOPOLOGY.landmarks, points_68=np.arange(68) % 9)
    truth = FaceFitter(many).model.mean * 40 @ rotation_matrix((15, 0, 10)).T + [60, 60, 0]
    rows = "\n".join("{:.3f} {:.3f}".format(*point) for point in truth[np.arange(68) % 9, :2] + 1)
    (tmp_path / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    boxes = np.array([[200, 200, 250, 260], [35, 30, 85, 90]], np.float32)
    photo = {"filename": b"a.jpg", "boxes": boxes, "landmarks": np.zeros((2, 5, 2)), "visible": np.full((2, 5), -1)}
    nothing, fit = FromPoints(many, tmp_path)(photo)
    assert nothing is None
    np.testing.assert_allclose(fit.vertices[:, :2], truth[:, :2], atol=0.1)


def test_a_face_landmarker_is_shown_each_box_and_believed(tmp_path, monkeypatch):
    """With a stand-in for MediaPipe, whose model file can't be had here: what it is given, and where its points go."""
    shown = []

    class Landmarker:
        @classmethod
        def create_from_options(cls, options):
            assert options.base_options.model_asset_path == str(tmp_path / "model.task")
            return cls()

        def detect(self, pixels):
            shown.append(pixels)
            point = types.SimpleNamespace(x=0.5, y=0.25, z=0.1)
            return types.SimpleNamespace(face_landmarks=[[point] * 478] if len(shown) == 1 else [])

    simple = lambda **fields: types.SimpleNamespace(**fields)  # noqa: E731
    vision = simple(FaceLandmarkerOptions=simple, FaceLandmarker=Landmarker)
    image = simple(Image=lambda image_format, data: data, ImageFormat=simple(SRGB=1))
    monkeypatch.setitem(sys.modules, "mediapipe", image)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks", simple())
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", simple(BaseOptions=simple, vision=vision))
    (tmp_path / "model.task").write_bytes(b"model")
    wider_tree.make_photos(tmp_path, ["a.jpg"])
    vertices = np.random.default_rng(0).normal(size=(NUM_VERTICES, 3))
    topology = Topology(vertices, [[0, 1, 2]], landmarks=[[0], [1], [2], [3], [4]])
    provider = FromFaceLandmarker(topology, tmp_path / "model.task")
    boxes = np.array([[10, 20, 30, 60], [10, 20, 30, 60]], np.float32)
    encoded = (tmp_path / "a.jpg").read_bytes()
    fit, nothing = provider(
        {"encoded": encoded, "boxes": boxes, "landmarks": np.zeros((2, 5, 2)), "visible": np.full((2, 5), -1)}
    )
    assert shown[0].shape == (80, 60, 3)  # 20 pixels more on every side
    np.testing.assert_allclose(fit.vertices[0], [-10 + 30, 0 + 20, 0], atol=1e-5)
    assert fit.vertices.shape == (468, 3) and nothing is None


def test_a_face_landmarker_without_its_package_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", None)
    (tmp_path / "model.task").write_bytes(b"model")
    topology = Topology(np.random.default_rng(0).normal(size=(NUM_VERTICES, 3)), [[0, 1, 2]])
    with pytest.raises(ImportError, match=r"retinaface-tf\[mediapipe\]"):
        FromFaceLandmarker(topology, tmp_path / "model.task")
