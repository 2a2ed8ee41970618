"""The table of formats: adding one takes a runtime, an exporter and an entry."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import retinaface_tf
from retinaface_tf.inference import formats
from retinaface_tf.loading import kind_of, load, needs_tensorflow

METADATA = {
    "format": 1,
    "library": "retinaface_tf",
    "score_threshold": 0.5,
    "nms_threshold": 0.4,
    "max_detections": 1,
    "fixed": ["max_detections"],
    "fill": [123, 117, 104],
    "largest_anchor": 512.0,
    "input": {"size": None},
}


class CornerModel:
    """The runtime of a toy format: a JSON file that finds one face in the upper left corner of every photo."""

    def __init__(self, path, threads=None):
        self.path, self.threads = path, threads
        self.metadata = json.loads(Path(path).read_text("utf-8"))

    def run(self, images, windows, score_threshold, nms_threshold, max_detections):
        count = len(images)
        boxes, landmarks = np.zeros((count, 1, 4), "f"), np.zeros((count, 1, 5, 2), "f")
        boxes[..., 2:] = 8
        return {
            "boxes": boxes,
            "scores": np.full((count, 1), 0.9, "f"),
            "landmarks": landmarks,
            "count": np.ones(count, int),
        }


def export_corner(model, path, options):
    Path(path).write_text(json.dumps({**METADATA, "score_threshold": options.score_threshold}), "utf-8")
    return Path(path)


@pytest.fixture
def corner(monkeypatch):
    """The toy format, added as its author would: a runtime module, an exporter module, an entry."""
    for name, thing in (("CornerModel", CornerModel), ("export_corner", export_corner)):
        module = ModuleType(f"corner_{name}")
        setattr(module, name, thing)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = formats.Format(
        "corner",
        "a .corner file",
        suffix=".corner",
        runtimes={"cornerstone": "corner_CornerModel:CornerModel"},
        exporter="corner_export_corner:export_corner",
    )
    monkeypatch.setitem(formats.FORMATS, "corner", entry)
    return entry


@pytest.mark.parametrize("wrong", ["", None, 5])
def test_what_is_no_name_is_no_model(wrong):
    with pytest.raises(ValueError, match=r"expected a preset's name, .* Received: "):
        retinaface_tf.load(wrong)


def test_a_format_that_is_added_can_be_opened(corner, tmp_path):
    path = tmp_path / "faces.corner"
    path.write_text(json.dumps(METADATA), "utf-8")
    assert kind_of(path) == "corner"
    assert not needs_tensorflow(path)
    detector = load(path, threads=3, runtime="cornerstone")
    assert detector.runtime.threads == 3
    assert detector.detect(np.zeros((20, 30, 3), np.uint8), resize=None).boxes.tolist() == [[0, 0, 8, 8]]
    assert "a .corner file" in formats.titles()
    with pytest.raises(ValueError, match=r"Expected .* a \.corner file"):
        load(tmp_path / "faces.h5")


def test_runtimes_and_exporters_of_the_table_exist():
    for each in formats.FORMATS.values():
        assert callable(formats.import_object(each.exporter))
        for runtime in each.runtimes.values():
            assert callable(formats.import_object(runtime))
    assert formats.runtime_names() == ["tensorflow", "litert", "litert-int8", "onnxruntime", "openvino"]
    assert formats.format_of("a.ONNX").name == "onnx"
    assert formats.format_of("a.keras") is None


def test_the_public_name_of_every_part_is_there():
    for name in retinaface_tf.__all__:
        assert getattr(retinaface_tf, name) is not None


@pytest.mark.slow
@pytest.mark.parametrize("first", ["retinaface_tf.export", "from retinaface_tf.export.tflite import export_tflite"])
def test_the_folder_and_the_function_export_have_one_name(first):
    code = f"""
import retinaface_tf
{first}
from retinaface_tf.export.tflite import export_tflite
import retinaface_tf.export.options
assert callable(retinaface_tf.export) and callable(export_tflite)
try:
    retinaface_tf.export("mobilenet025_wider", "x.pth")
except ValueError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "`format` must be one of ['saved_model', 'tflite', 'onnx']. Received: path='x.pth'" in result.stdout


def test_export_goes_by_the_table(corner, tmp_path):
    path = retinaface_tf.export(None, tmp_path / "a.corner", score_threshold=0.25)
    assert load(path).metadata["score_threshold"] == 0.25
    retinaface_tf.export(None, tmp_path / "b.bin", format="corner")
    with pytest.raises(TypeError, match="quantise"):
        retinaface_tf.export(None, tmp_path / "a.corner", quantise="int8")
    with pytest.raises(ValueError, match="`format` must be one of"):
        retinaface_tf.export(None, tmp_path / "a.corner", format="coreml")
