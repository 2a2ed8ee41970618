"""One `detect` for every artifact: what is opened how, what an artifact has fixed, images of another size."""

import argparse
import ast
import json
import pickle
import shutil
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import retinaface_tf
from retinaface_tf import loading as runtimes
from retinaface_tf.cli import evaluation_options as evaluation
from retinaface_tf.cli import main as cli
from retinaface_tf.common.types import PhotoWarning
from retinaface_tf.image.letterbox import fit
from retinaface_tf.image.loading import load_image
from retinaface_tf.inference.artifact import parse
from retinaface_tf.inference.formats import newest_version
from retinaface_tf.inference.predictor import Detector
from retinaface_tf.inference.tiles import at_size
from retinaface_tf.loading import kind_of, load, needs_tensorflow

METADATA = {
    "format": 1,
    "library": "retinaface_tf",
    "version": "0.1.0",
    "score_threshold": 0.5,
    "nms_threshold": 0.4,
    "max_detections": 3,
    "fixed": ["score_threshold", "nms_threshold", "max_detections"],
    "fill": [123, 117, 104],
    "largest_anchor": 512.0,
    "input": {"size": None},
}


class Three:
    """A runtime that finds three faces everywhere, whatever it is asked."""

    def __init__(self, fixed=METADATA["fixed"]):
        self.metadata = {**METADATA, "fixed": list(fixed)}
        self.sizes = []

    def run(self, images, windows, score_threshold, nms_threshold, max_detections):
        count = len(images)
        self.sizes.append(images.shape[1:3])
        boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]], np.float32)
        return {
            "boxes": np.repeat(boxes[None], count, axis=0),
            "scores": np.repeat(np.array([[0.9, 0.7, 0.6]], np.float32), count, axis=0),
            "landmarks": np.zeros((count, 3, 5, 2), np.float32),
            "count": np.full(count, 3, np.int32),
        }


def test_load_opens_what_there_is(exported_saved_model, bundled_model, sample_photo, monkeypatch):
    from retinaface_tf.detector import RetinaFace

    asked = []
    monkeypatch.setattr(RetinaFace, "from_preset", lambda name: asked.append(name) or bundled_model)
    monkeypatch.setattr(Path, "is_file", lambda self, is_file=Path.is_file: self.suffix == ".keras" or is_file(self))
    expected = bundled_model.detect(sample_photo)
    for path in ("mobilenet025_wider", Path("mine.keras"), str(exported_saved_model / "1")):
        runtime = "keras" if path == "mobilenet025_wider" else None
        found = retinaface_tf.load(path, runtime=runtime).detect(sample_photo)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-3)
        assert (found.width, found.height) == (512, 512)
    assert asked == ["mobilenet025_wider", "mine.keras"]


def test_a_preset_runs_on_its_own_file_unless_keras_is_asked_for(bundled_model, sample_photo):
    detector = load("mobilenet025_wider", threads=1)
    assert isinstance(detector, Detector)
    found, expected = detector.detect(sample_photo), bundled_model.detect(sample_photo)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    again = pickle.loads(pickle.dumps(detector))
    assert again.reopen.args == ("mobilenet025_wider",)  # a path may be another on another machine
    np.testing.assert_array_equal(again.detect(sample_photo).boxes, found.boxes)
    with pytest.raises(
        ValueError, match=r"mobilenet025_wider: has no bundled \.onnx\. Export one: retinaface-tf export"
    ):
        load("mobilenet025_wider", runtime="onnx")
    with pytest.raises(ValueError, match="`runtime` must be one of"):
        load("mobilenet025_wider", runtime="coreml")
    assert not needs_tensorflow("mobilenet025_wider")
    assert needs_tensorflow("mobilenet025_wider", "keras")
    assert needs_tensorflow("resnet50")


def test_a_damaged_artifact_of_a_preset_is_refused(tmp_path):
    card = {"architecture": {}, "artifacts": {"tflite": {"file": "faces.tflite", "sha256": "0" * 64}}}
    (tmp_path / "preset.json").write_text(json.dumps(card))
    (tmp_path / "faces.tflite").write_bytes(b"something else")
    with pytest.raises(OSError, match=r"faces\.tflite is damaged: sha256 .*, expected 000"):
        load(tmp_path)


def test_a_list_gives_a_list_and_a_photo_its_faces(saved_model_detector, sample_photo):
    detector = saved_model_detector
    assert len(detector.detect([sample_photo, sample_photo])) == 2
    assert len(detector.detect(np.zeros((2, 40, 40, 3), np.uint8))) == 2
    assert detector.detect([]) == []
    with pytest.raises(ValueError, match=r"none\.jpg: no such file"):
        detector.detect("none.jpg")


def test_the_highest_version_counts_as_a_number(tmp_path):
    for name in ("9", "10", "best", ".new-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "11").mkdir()  # still without its graph
    assert newest_version(tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "9") == tmp_path / "9"
    assert newest_version(tmp_path / "11") is None


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("model.h5", ValueError, "unknown model. Expected a preset's name, a .keras file, a SavedModel folder"),
        ("mobilenet", ValueError, "presets: .*mobilenet025_wider"),
        ("none.tflite", FileNotFoundError, "none.tflite: no such file"),
        ("none.onnx", FileNotFoundError, "none.onnx: no such file"),
        ("none.keras", FileNotFoundError, "none.keras: no such file"),
        ("empty", ValueError, "empty: no SavedModel in this folder"),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path, monkeypatch, name, error, complaint):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("model.h5").touch()
    with pytest.raises(error, match=complaint) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_kinds_go_by_form(tmp_path, exported_saved_model):
    for name in ("a.TFLITE", "b.onnx", "c.keras"):
        (tmp_path / name).touch()
        assert kind_of(tmp_path / name) == name[2:].lower()
    assert kind_of(exported_saved_model) == kind_of(exported_saved_model / "1") == "saved_model"
    assert kind_of("mobilenet025_wider") == "preset"
    (tmp_path / "preset.json").touch()
    assert kind_of(tmp_path) == "preset"  # a folder of one's own


def test_threads_of_tensorflow_are_chosen_before_its_first_operation(exported_saved_model, bundled_model):
    with pytest.raises(ValueError, match="before TensorFlow runs its first operation"):
        load(exported_saved_model, threads=17)
    with pytest.raises(ValueError, match="`threads` must be a positive integer"):
        load(exported_saved_model, threads=0)


def test_a_saved_model_of_something_else_and_a_damaged_one(exported_saved_model, tmp_path):
    shutil.copytree(exported_saved_model, tmp_path / "damaged")
    (tmp_path / "damaged/1/saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"1: can't be opened \("):
        load(tmp_path / "damaged")
    (tmp_path / "damaged/1/assets.extra/retinaface.json").unlink()
    with pytest.raises(ValueError, match="not an artifact of `retinaface-tf export`"):
        load(tmp_path / "damaged")


def test_metadata_is_checked():
    assert parse(json.dumps(METADATA), "x")["largest_anchor"] == 512
    for text in (None, b"\xff\xfe", "[]", "{}", '{"library": "other"}'):
        with pytest.raises(ValueError, match=r"^x\.onnx: not an artifact of `retinaface-tf export`"):
            parse(text, "x.onnx")
    with pytest.raises(ValueError, match=r"has format 2, made by retinaface_tf 0\.1\.0; this version reads format 1"):
        parse(json.dumps({**METADATA, "format": 2}), "x")
    for change, complaint in (
        ({"input": {}}, "`input` must have the size of the images"),
        ({"input": {"size": [0, 640]}}, "`input.size.0.` must be an integer of at least 1"),
        ({"input": {"size": [480]}}, "`input.size` must be a list of 2"),
        ({"input": {"size": None, "color": "BGR"}}, "an unknown key input.color"),
        ({"fill": None}, "`fill` must be a list of 3"),
        ({"fill": [0, 0, 256]}, "`fill.2.` must be an integer of at least 0 and at most 255"),
        ({"largest_anchor": "512"}, "`largest_anchor` must be a number"),
        ({"score_threshold": 1.5}, "`score_threshold` must be a number of at least 0 and at most 1"),
        ({"max_detections": 0}, "`max_detections` must be an integer of at least 1"),
        ({"max_detections": True}, "`max_detections` must be an integer"),
        ({"fixed": ["resize"]}, "`fixed.0.` must be one of"),
        ({"__class__": 1}, "an unknown key __class__"),
    ):
        with pytest.raises(ValueError, match=f"^x: its metadata is damaged: .*{complaint}") as caught:
            parse(json.dumps({**METADATA, **change}), "x")
        assert "\n" not in str(caught.value)


def test_what_an_artifact_has_fixed_can_be_tightened_but_not_loosened():
    detector, photo = Detector(Three()), np.zeros((60, 60, 3), np.uint8)
    once = partial(detector.detect, photo, close_ups=False)
    assert once().scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert once(score_threshold=0.65).scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(detector.detect(photo, max_detections=1)) == len(once(max_detections=1)) == 1
    for wrong in ({"score_threshold": 0.3}, {"max_detections": 4}, {"nms_threshold": 0.5}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"`{name}` is fixed in this artifact, at .* Export it again with --"):
            detector.detect(photo, **wrong)
        assert len(Detector(Three(fixed=())).detect(photo, close_ups=False, **wrong)) == 3
    with pytest.raises(ValueError, match="`score_threshold` must be a number"):
        detector.detect(photo, score_threshold="high")


def test_the_commands_say_once_what_an_artifact_has_fixed(capsys, monkeypatch, tmp_path, sample_photo):
    monkeypatch.setattr(runtimes, "load", lambda path, **_: Detector(Three()))
    monkeypatch.chdir(tmp_path)
    Path("a.tflite").touch()
    words = ["detect", str(sample_photo), str(sample_photo.parent), "--model", "a.tflite"]
    assert cli.main([*words, "--score-threshold", "0.1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("`score_threshold` is fixed in this artifact, at 0.5")) == ("", 1)
    assert cli.main(words) == 0  # left out they are the artifact's own
    assert "1 photo, 3 faces" in capsys.readouterr().out


def test_a_measurement_looks_for_as_many_faces_as_the_artifact_can(monkeypatch, sample_photo):
    opened = Detector(Three(fixed=("max_detections",)))
    monkeypatch.setattr(runtimes, "load", lambda path, **_: opened)
    monkeypatch.setattr(runtimes, "needs_tensorflow", lambda path, runtime=None: False)
    monkeypatch.setattr(runtimes, "identify", lambda path, runtime=None: {"model": "sha256 0", "runtime": "litert"})
    args = argparse.Namespace(
        preset=None, model="a.tflite", runtime=None, score_threshold=0.02, nms_threshold=0.4, max_detections=None
    )
    detect, settings = evaluation.open_detector(args)
    assert len(detect(np.zeros((60, 60, 3), np.uint8))) == 3
    assert settings["max_detections"] == opened.metadata["max_detections"]


def test_a_full_artifact_says_so():
    photo = np.zeros((60, 60, 3), np.uint8)
    detector = Detector(Three(fixed=("max_detections",)))
    with pytest.warns(
        PhotoWarning, match="a photo: this artifact returns at most 3 faces per photo; there may be more"
    ):
        faces = detector.detect(photo)
    assert faces.truncated and faces.to_dict()["truncated"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not detector.detect(photo, score_threshold=0.65).truncated  # one of the three is a hint
        assert not detector.detect(photo, max_detections=2).truncated  # as asked for
        assert "truncated" not in detector.detect(photo, max_detections=2).to_dict()
        assert not Detector(Three(fixed=())).detect(photo).truncated


def test_images_larger_than_the_artifact_are_shrunk_and_smaller_ones_are_not():
    three = Three()
    run = at_size(three.run, (48, 64), (1, 2, 3))
    thresholds = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 3}
    images, windows = np.zeros((2, 96, 96, 3), np.uint8), np.array([[0, 0, 96, 96]] * 2, np.float32)
    outputs = run(images, windows, **thresholds)
    assert three.sizes == [(48, 64)] * 2
    assert outputs["boxes"].shape == (2, 3, 4)
    np.testing.assert_allclose(outputs["boxes"][0, 1], [40, 0, 60, 20])  # twice as far
    outputs = run(images[:, :30, :40], windows, **thresholds)
    np.testing.assert_allclose(outputs["boxes"][0, 1], [20, 0, 30, 10])


def test_the_window_goes_where_the_photo_goes():
    seen = []

    def run(images, windows, **thresholds):
        seen.append(windows)
        return Three().run(images, windows, **thresholds)

    thresholds = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 3}
    at_size(run, (50, 50), (0, 0, 0))(np.zeros((1, 100, 80, 3), np.uint8), np.array([[8, 20, 72, 80]]), **thresholds)
    np.testing.assert_allclose(seen[0], [[4, 10, 36, 40]])


def test_a_canvas_of_a_fixed_size_changes_no_face(bundled_model, sample_photo):
    photo = load_image(sample_photo)[:200, 120:360]
    box = fit(photo, (256, 288), METADATA["fill"])
    assert box.canvas.shape == (256, 288, 3)
    np.testing.assert_array_equal(box.canvas[:200, :240], photo)
    assert (box.canvas[200:] == METADATA["fill"]).all()
    detector = Detector(_model_at(bundled_model, (256, 288)))
    found, expected = detector.detect(photo), bundled_model.detect(photo, resize=None)
    assert len(found) == len(expected) == 1
    assert np.abs(found.boxes - expected.boxes).max() < 2  # the border is seen
    shrunk = Detector(_model_at(bundled_model, (100, 128))).detect(photo)
    assert (shrunk.width, shrunk.height) == (240, 200)
    assert np.abs(shrunk.boxes - expected.boxes).max() < 10


def _model_at(model, size):
    runtime = Three(fixed=())
    runtime.metadata["input"] = {**METADATA["input"], "size": list(size)}
    runtime.run = at_size(model.inference(), size, METADATA["fill"])
    return runtime


def test_no_runtime_imports_keras_and_one_tensorflow():
    for path in sorted((Path(runtimes.__file__).parent / "inference").rglob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
        assert "keras" not in names, path
        assert ("tensorflow" in names) == (path.name == "saved_model.py"), path
