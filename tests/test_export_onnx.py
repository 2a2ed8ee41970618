"""The ONNX file: what is in it, and that its decoder and its converted network are those of Python."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import parser
from test_decoder import ANCHORS, literal, predictions

from retinaface_tf import RetinaFace, load
from retinaface_tf.export.onnx import build_onnx, export_onnx
from retinaface_tf.export.onnx_graph import convert_function, decoder_text
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.image.loading import load_image

OUTPUTS = ["boxes", "scores", "landmarks", "count"]


def session(model):
    """A session of a `ModelProto` or its file: function of inputs by name -> dict of outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model.read_bytes()
    opened = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in opened.get_outputs()]
    return lambda **inputs: dict(zip(names, opened.run(names, inputs), strict=True))


def scalars(score=0.5, nms=0.4, most=10):
    return {
        "score_threshold": np.array(score, np.float32),
        "nms_threshold": np.array(nms, np.float32),
        "max_detections": np.array(most, np.int32),
    }


def decode(given, anchors=ANCHORS, windows=((0, 0, 100, 100),), variances=(0.1, 0.2), top_k=5000, fixed=None, **limits):
    """The decoder alone, on what `test_decoder` gives the layer."""
    kinds = ("face", "box", "landmark")
    values = np.concatenate([given[k].reshape(*given[k].shape[:2], -1) for k in kinds], axis=2)
    run = session(parser.parse_model(decoder_text(variances, top_k, fixed)))
    return run(
        values=values,
        anchors=anchors,
        frame=np.array([[0, 0, 100, 100]], np.float32),
        windows=np.array(windows, np.float32).reshape(-1, 4),
        **scalars(**limits),
    )


def same(found, expected, pixels=1e-3, score=1e-5):
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=score)
    for name in ("boxes", "landmarks"):
        assert found[name].shape == expected[name].shape
        np.testing.assert_allclose(found[name], expected[name], atol=pixels)


def random_case(seed, images=3, count=300):
    random = np.random.default_rng(seed)
    low = random.uniform(-10, 90, (count, 2))
    anchors = np.concatenate([low, low + random.uniform(4, 40, (count, 2))], axis=1).astype("float32")
    return predictions(random.uniform(0.01, 0.99, (images, count)), random=random), anchors


@pytest.mark.parametrize("fixed", [None, 300])
@pytest.mark.parametrize("top_k, most", [(5000, 40), (5000, 3), (25, 40), (25, 400)])
def test_the_decoder_is_the_layer(top_k, most, fixed):
    given, anchors = random_case(seed=top_k + most)
    windows = [(0, 0, 100, 100), (10, 10, 60, 80), (0, 0, 1, 1)]
    found = decode(given, anchors, windows, (0.3, 0.1), top_k, fixed, score=0.3, nms=0.35, most=most)
    layer = DetectionDecoder((0.3, 0.1), top_k)
    windows = np.array(windows, "float32")
    expected = layer(given, anchors, windows, score_threshold=0.3, nms_threshold=0.35, max_detections=most)
    assert expected["count"].numpy().min() < most  # one image has fewer than another: there is padding
    same(found, expected)
    assert found["count"].dtype == np.int32


def test_the_decoder_is_a_literal_loop():
    given, anchors = random_case(seed=9, images=2)
    found = decode(given, anchors, [(0, 0, 100, 100), (5, 5, 70, 90)], score=0.25, nms=0.3, most=50)
    for row, window in enumerate([(0, 0, 100, 100), (5, 5, 70, 90)]):
        expected = literal({k: v[row] for k, v in given.items()}, anchors, window, 0.25, 0.3, 50)
        assert found["count"][row] == len(expected)
        np.testing.assert_allclose(found["boxes"][row, : len(expected)], [box for _, box in expected], atol=1e-3)


def test_overlap_counts_pixels_inclusively():
    """Overlap is 0.667 by area and 0.692 with one added to widths and heights."""
    assert decode(predictions([0.9, 0.8, 0.1, 0.1]), nms=0.68)["count"] == [1]
    assert decode(predictions([0.9, 0.8, 0.1, 0.1]), nms=0.70)["count"] == [2]


def test_a_score_at_the_threshold_is_kept():
    """A half is 0.5 exactly, in both."""
    assert decode(predictions([0.5, 0.1, 0.1, 0.1]), score=0.5)["count"] == [1]
    assert decode(predictions([0.1, 0.1, 0.1, 0.1]), score=0.5)["count"] == [0]


def test_without_windows_the_image_is_the_window():
    given = predictions([[0.9, 0.1, 0.1, 0.8]] * 2)
    same(decode(given, windows=()), decode(given, windows=[(0, 0, 100, 100)] * 2))
    assert decode(given, windows=())["boxes"][0, 1].tolist() == [90, 0, 100, 20]


@pytest.fixture(scope="module")
def unusual():
    """A model with nothing at its default, random weights, and scores on both sides of a half."""
    tf.keras.utils.set_random_seed(5)
    return RetinaFace(
        anchors={"P2": [8], "P3": [16, 24, 32], "P4": [64], "P5": [128, 256], "P6": [512]},
        num_filters=8,
        shared_context=True,
        pixel_mean=(100.0, 110.0, 120.0),
        pixel_std=(50.0, 60.0, 70.0),
        variances=(0.2, 0.3),
    )


@pytest.mark.parametrize("size", [None, (61, 131)])
def test_an_unusual_model(unusual, size):
    options = ExportOptions(size, score_threshold=0.5, nms_threshold=0.3, max_detections=20)
    run = session(build_onnx(unusual, options, optional_inputs=True))
    images = np.random.default_rng(0).integers(0, 256, (2, 61, 131, 3), dtype=np.uint8)
    windows = np.array([[0, 0, 131, 61], [9, 5, 100, 50]], np.float32)
    expected = {name: value.numpy() for name, value in unusual.inference()(images, windows, 0.5, 0.3, 20).items()}
    assert expected["count"].min() > 3
    rows = [slice(0, 2)] if size is None else [slice(0, 1), slice(1, 2)]
    for row in rows:
        found = run(images=images[row], windows=windows[row])  # the rest has the export's defaults
        same(found, {name: value[row] for name, value in expected.items()}, pixels=0.05, score=1e-3)


def test_what_the_file_holds(bundled_onnx, bundled_model):
    model = onnx.load(bundled_onnx)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == OUTPUTS
    operators = [node.op_type for node in model.graph.node]
    assert not {"Loop", "Scan", "If", "SequenceAt"} & set(operators)
    assert operators.count("NonMaxSuppression") == 1
    # One Transpose into the planes of the network and one out of each level's head, none between.
    assert operators.count("Transpose") == 1 + len(bundled_model.anchor_generator.sizes)
    (properties,) = model.metadata_props
    told = json.loads(properties.value)
    assert (properties.key, told["library"], told["preset"]) == ("retinaface_tf", "retinaface_tf", "mobilenet025_wider")
    assert (told["input"]["size"], told["max_detections"], told["fixed"]) == (None, 750, [])


def test_nothing_that_onnx_gave_up(bundled_onnx):
    for node in onnx.load(bundled_onnx).graph.node:
        values = [onnx.helper.get_attribute_value(attribute) for attribute in node.attribute]
        assert b"tf_half_pixel_for_nn" not in values


def test_a_plain_session_takes_images_alone_and_prints_nothing(bundled_onnx, sample_photo, capfd):
    opened = onnxruntime.InferenceSession(str(bundled_onnx))
    images = load_image(sample_photo)[None]
    boxes, count = opened.run(["boxes", "count"], {"images": images})
    assert (boxes.shape, count) == ((1, 750, 4), [1])
    assert [value.name for value in (*opened.get_inputs(), *opened.get_overridable_initializers())] == ["images"]
    assert capfd.readouterr().err == ""


def test_optional_inputs_and_constants_are_the_same_to_load(bundled_onnx, bundled_model, sample_photo, tmp_path):
    path = export_onnx(bundled_model, tmp_path / "inputs.onnx", ExportOptions(), optional_inputs=True)
    names = ["images", "windows", "score_threshold", "nms_threshold", "max_detections"]
    assert [value.name for value in onnx.load(path).graph.input] == names
    images = load_image(sample_photo)[None]
    run = session(path)
    found = run(images=images)
    assert (found["boxes"].shape, found["count"]) == ((1, 750, 4), [1])
    found = run(images=images, **scalars(score=0.999999, most=7))
    assert (found["boxes"].shape, found["count"]) == ((1, 7, 4), [0])
    for runtime in ("onnxruntime", "openvino"):
        one, other = (load(file, runtime=runtime) for file in (bundled_onnx, path))
        for options in ({}, {"score_threshold": 0.01, "max_detections": 3}, {"resize": (300, 300)}):
            expected = one.detect(sample_photo, **options)
            assert len(expected) == (3 if "max_detections" in options else 1)
            np.testing.assert_array_equal(other.detect(sample_photo, **options).boxes, expected.boxes)


def test_floor_division_of_integers():
    """tf2onnx alone answers -(-9 // 8) with 1."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")], autograph=False)
    def halves(x):
        return {"up": -(-x // 8), "down": x // 8}

    x = np.arange(-20, 21, dtype=np.int32)
    found = session(convert_function(halves, 17, nchw=None))(x=x)
    np.testing.assert_array_equal(found["up"], -(-x // 8))
    np.testing.assert_array_equal(found["down"], x // 8)


def test_mixed_precision_is_exported_in_float32(monkeypatch):
    from retinaface_tf.export import onnx as exporter

    monkeypatch.setattr(exporter, "convert_function", lambda function, *_, **__: function)
    model = RetinaFace(num_filters=8, anchors={"P5": [64]}, dtype="mixed_bfloat16")
    graph = exporter._convert_network(exporter.prepare_for_export(model), None).get_concrete_function().graph
    assert tf.bfloat16 not in {tensor.dtype for op in graph.get_operations() for tensor in op.outputs}


def test_a_missing_converter_is_one_line(bundled_model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'retinaface-tf\[onnx\]'"):
        export_onnx(bundled_model, tmp_path / "model.onnx", ExportOptions())
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_behind(bundled_model, tmp_path, monkeypatch):
    from retinaface_tf.export import onnx as exporter

    class TooLarge:
        def SerializeToString(self, **_):  # noqa: N802
            raise ValueError("too large")

    (tmp_path / "model.onnx").write_bytes(b"earlier")
    monkeypatch.setattr(exporter, "build_onnx", lambda *_: TooLarge())
    with pytest.raises(ValueError, match="too large"):
        export_onnx(bundled_model, tmp_path / "model.onnx", ExportOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"earlier"
