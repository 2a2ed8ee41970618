"""All switches of the paper at once: trained, saved, opened, run as SavedModel, TFLite and ONNX on a photo."""

import keras
import numpy as np
import pytest
from faces_3d import small_topology
from PIL import Image

from retinaface_tf import RetinaFace, load
from retinaface_tf.export.detector_graph import DetectorGraph
from retinaface_tf.export.metadata import count_operations
from retinaface_tf.export.onnx import export_onnx
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.saved_model import export_saved_model
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.image.loading import load_image
from retinaface_tf.presets import load as load_preset
from retinaface_tf.training.build import build_model, compile_model, warm_start
from retinaface_tf.training.config import TrainConfig, override

pytestmark = pytest.mark.slow  # builds and exports large models

SWITCHES = {"deformable": "v2", "cascade": True}
SIDE = 256


@pytest.fixture(scope="module")
def photo(sample_photo):
    """The bundled photo's face, as large as the largest anchors."""
    face = Image.fromarray(load_image(sample_photo)).crop((140, 30, 300, 190))
    return np.asarray(face.resize((SIDE, SIDE)))


@pytest.fixture(scope="module")
def moved(bundled_model):
    """The bundled model's coarsest level with all switches, and offsets and second boxes that are not 0."""
    config = {**bundled_model.get_config(), "anchors": {"P5": (256, 512)}}
    plain, model = RetinaFace(**config), RetinaFace(**{**config, **SWITCHES})
    values, random = {v.path: v for v in bundled_model.variables}, np.random.default_rng(0)
    for variable in plain.variables:
        variable.assign(values[variable.path])
    warm_start(model, plain)
    for variable in model.variables:
        if "/offsets/" in variable.path or variable.path.startswith("box_head"):
            variable.assign(random.normal(0, 0.3 if variable.path.endswith("bias") else 0.003, variable.shape))
    return model


def detect(model, photo):
    return model.detect(photo, score_threshold=0.1, resize=None, close_ups=False)


def test_five_levels_of_three_anchors():
    """The paper's: 102,300 anchors at 640 pixels, from 16 to 406 pixels in steps of a third of an octave."""
    architecture = load_preset("paper_resnet152")["architecture"]
    sizes = [size for level in architecture["anchors"].values() for size in level]
    np.testing.assert_allclose(sizes, 16 * 2 ** (np.arange(15) / 3), atol=0.01)
    assert list(architecture["anchors"]) == ["P2", "P3", "P4", "P5", "P6"]
    assert AnchorGenerator(architecture["anchors"]).count(640, 640) == 102_300
    assert architecture["deformable"] == "v2" and architecture["cascade"] is True


def test_it_trains_and_comes_back(photo, tmp_path):
    """By the paper's recipe, with a small body and one filter in thirty."""
    recipe = load_preset("paper_resnet152")["recipe"]["config"]
    config = override(TrainConfig(preset="paper_resnet152"), {**recipe, "schedule.warmup_epochs": 0})
    small = {"backbone": "mobilenet_v1_025", "num_filters": 8, "shared_context": True}
    config = override(config, {"architecture": small})
    keras.utils.set_random_seed(0)
    model = build_model(config)
    assert list(model.anchor_generator.sizes) == ["P2", "P3", "P4", "P5", "P6"]
    compile_model(model, config, steps_per_epoch=100)
    model.run_eagerly = True
    assert (model.objective.first_target.positive_iou, model.objective.first_target.negative_iou) == (0.7, 0.3)
    assert (model.objective.target.positive_iou, model.objective.target.negative_iou) == (0.5, 0.4)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    faces = {
        "boxes": np.array([[[0, 0, 32, 32], [30, 20, 46, 36]]], "float32"),
        "landmarks": np.full((1, 2, 5, 2), 20, "float32"),
        "visible": np.ones((1, 2, 5), "int32"),
    }
    images = photo[None, :64, :64]
    logs = {name: float(value) for name, value in model.train_step((images, faces)).items()}
    names = ["first_face", "first_box", "face", "box", "landmark"]
    assert all(logs[name] > 0 for name in names) and np.isfinite(logs["loss"])
    assert logs["loss"] == pytest.approx(sum(logs[name] for name in names), rel=1e-5)
    offsets = [v for v in model.trainable_variables if "/offsets/" in v.path]
    assert len(offsets) == 2 * (3 + 5)  # the merges of P2 to P4, and one context module
    assert all(np.abs(v.numpy() - before[v.path]).max() > 0 for v in offsets)

    model.save(tmp_path / "model.keras")
    again = RetinaFace.from_preset(tmp_path / "model.keras")
    expected, found = model(images), again(images)
    assert sorted(found) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_the_switches_change_the_answers(moved, photo):
    plain = RetinaFace(**{**moved.get_config(), "deformable": None, "cascade": False})
    values = {v.path.removeprefix("first_"): v for v in moved.variables if "/offsets/" not in v.path}
    for variable in plain.variables:
        variable.assign(values[variable.path])
    expected, found = detect(plain, photo), detect(moved, photo)
    assert len(expected) == len(found) == 1
    assert 1 < np.abs(found.boxes - expected.boxes).max() < 60


@pytest.mark.parametrize("kind", ["saved_model", "tflite", "onnx"])
def test_an_artifact_answers_like_python(moved, photo, tmp_path, kind):
    path = tmp_path / f"faces.{kind}"
    options = ExportOptions(size=(SIDE, SIDE) if kind == "tflite" else None)
    {"saved_model": export_saved_model, "tflite": export_tflite, "onnx": export_onnx}[kind](moved, path, options)
    expected, found = detect(moved, photo), detect(load(path), photo)
    assert len(expected) == len(found) == 1
    for name, most in (("boxes", 0.01), ("landmarks", 0.01), ("scores", 1e-5)):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=most)
    if kind == "tflite":
        operations = count_operations(path, kind)
        assert "GATHER" in operations
        assert not [name for name in operations if name.startswith(("CUSTOM", "VAR_HANDLE", "READ_VARIABLE"))]


@pytest.fixture(scope="module")
def five_levels():
    """P2 to P6, three anchors each, cascade and dense branch, with random heads: every level has faces to tell."""
    keras.utils.set_random_seed(0)
    anchors = load_preset("paper_resnet152")["architecture"]["anchors"]
    dense = {"topology": small_topology().to_dict(), "embedding": 6, "width": 5}
    model = RetinaFace(num_filters=8, anchors=anchors, shared_context=True, cascade=True, dense=dense)
    random = np.random.default_rng(0)
    for variable in model.variables:
        if "_head_" in variable.path:
            variable.assign(random.normal(0, 0.1, variable.shape))
    return model


@pytest.mark.parametrize("kind", ["saved_model", "tflite", "onnx"])
def test_five_levels_are_exported_with_cascade_and_vertices(five_levels, photo, tmp_path, kind):
    path, small = tmp_path / f"faces.{kind}", photo[::2, ::2]
    options = ExportOptions(size=small.shape[:2] if kind == "tflite" else None)
    {"saved_model": export_saved_model, "tflite": export_tflite, "onnx": export_onnx}[kind](five_levels, path, options)
    expected, found = (
        model.detect(small, score_threshold=0.3, max_detections=5, resize=None, close_ups=False)
        for model in (five_levels, load(path))
    )
    assert len(expected) == len(found) == 5 and found.vertices.shape == (5, 9, 3)
    for name, most in (("boxes", 1e-3), ("landmarks", 1e-3), ("vertices", 1e-3), ("scores", 1e-5)):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=most)


def test_eight_bits_leave_places_alone(moved):
    """The integers end with the body, before anything is looked up by its place."""
    graph = DetectorGraph(moved.fold(), (SIDE, SIDE), 10, 5)
    assert [tensor.shape[-1] for tensor in graph.split_points()] == [32, 64, 128, 256]
    plain = RetinaFace(**{**moved.get_config(), "deformable": None}).fold()
    assert [tensor.shape[-1] for tensor in DetectorGraph(plain, (SIDE, SIDE), 10, 5).split_points()] == [64, 64]
