"""The TFLite file: built-in operations, both signatures, and the faces that Python finds; in integers nearly those."""

import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from golden_vectors import golden_image
from PIL import Image
from tensorflow.lite.tools import flatbuffer_utils

from retinaface_tf import RetinaFace, load
from retinaface_tf.cli.main import main
from retinaface_tf.export.int8 import equalize, read_calibration_photos
from retinaface_tf.export.metadata import count_operations
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.export.tflite_model import append_subgraph, convert
from retinaface_tf.image.letterbox import letterbox
from retinaface_tf.image.loading import load_image

SIDE = 320
WEIGHTS = 4 * 426_608  # bytes
OPTIONS = ExportOptions(size=(SIDE, SIDE), preset="mobilenet025_wider")
FORBIDDEN = ("FLEX", "CUSTOM", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


@pytest.fixture(scope="module")
def photo(sample_photo):
    """The bundled photo at the exported size, `[1, 320, 320, 3]`."""
    return letterbox(load_image(sample_photo), (0, 0, 0), (SIDE, SIDE)).canvas[None]


@pytest.fixture(params=["any size", "one size"])
def exported(request):
    """Each of the two files."""
    return request.getfixturevalue("any_size_tflite" if request.param == "any size" else "exported_tflite")


@pytest.fixture(scope="module")
def half(bundled_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("fp16") / "faces.tflite"
    return export_tflite(bundled_model, path, ExportOptions(), quantize="fp16")


@pytest.fixture(scope="module")
def integers(bundled_model, calibration, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "faces.tflite"
    return export_tflite(bundled_model, path, ExportOptions(), quantize="int8", calibration=calibration)


@pytest.fixture(scope="module")
def calibration(sample_photo):
    """Crops and sizes of the bundled photo, none of which is the one that is tested on."""
    photo = Image.fromarray(load_image(sample_photo))
    crops = [(0, 0, 400, 400), (100, 0, 420, 320), (60, 30, 512, 482), (130, 20, 330, 220)]
    return [np.asarray(photo.crop(box).resize((side, side))) for box in crops for side in (240, 320)]


def run(path, image, threads=1, **inputs):
    runner = Interpreter(str(path), num_threads=threads).get_signature_runner("detect" if inputs else "serving_default")
    if inputs and "max_detections" in runner.get_input_details():
        inputs = {"max_detections": np.int32(750), **inputs}
    return runner(images=image, **inputs)


def python(model, image, window=None, score=0.5, nms=0.4, most=750):
    window = np.array([window or (0, 0, image.shape[2], image.shape[1])], np.float32)
    return {name: value.numpy() for name, value in model.inference()(image, window, score, nms, most).items()}


def assert_same(outputs, expected, pixels=0.05, score=1e-3):
    assert outputs["count"] == expected["count"]
    for name, tolerance in (("boxes", pixels), ("landmarks", pixels), ("scores", score)):
        np.testing.assert_allclose(outputs[name], expected[name], atol=tolerance)


def test_operations_are_built_in_and_weights_are_there_once(any_size_tflite, exported_tflite, half, integers):
    limits = {any_size_tflite: 1.05 * WEIGHTS, exported_tflite: 1.05 * WEIGHTS, half: 0.55 * WEIGHTS, integers: 600_000}
    for path, most in limits.items():
        operations = count_operations(path, "tflite")
        assert not [name for name in operations if name.startswith(FORBIDDEN)]
        assert operations["NON_MAX_SUPPRESSION_V5"] == 2  # one in each signature
        assert WEIGHTS / 4 < path.stat().st_size < most


def test_plain_interpreter_sees_one_image_and_outputs_in_the_stated_order(exported_tflite, photo, bundled_model):
    interpreter = Interpreter(str(exported_tflite))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    assert (image["name"], image["shape"].tolist(), image["dtype"]) == ("images", [1, SIDE, SIDE, 3], np.uint8)
    interpreter.set_tensor(image["index"], photo)
    interpreter.invoke()
    details = interpreter.get_output_details()
    assert [(one["name"], one["shape"].tolist()) for one in details] == [
        ("boxes", [1, 750, 4]),
        ("scores", [1, 750]),
        ("landmarks", [1, 750, 5, 2]),
        ("count", [1]),
    ]
    outputs = {one["name"]: interpreter.get_tensor(one["index"]) for one in details}
    assert outputs["count"].dtype == np.int32
    assert_same(outputs, python(bundled_model, photo))


@pytest.mark.parametrize(
    ("mean", "std", "folded"),
    [((103, 116, 123), (1, 1, 1), True), ((12, 200, 90), (57, 58, 2), True), ((103.5, 116, 123), (57, 58, 2), False)],
)
def test_normalization_is_part_of_the_first_convolution(mean, std, folded, tmp_path):
    """Where the mean is a color, which the border can be filled with. Odd sides show the border at each edge."""
    model = RetinaFace("mobilenet_v1_025", num_filters=8, pixel_mean=mean, pixel_std=std)
    path = export_tflite(model, tmp_path / "faces.tflite", ExportOptions(top_k=50))
    operations = [operation["op_name"] for operation in Interpreter(str(path))._get_ops_details()]
    assert ("SUB" not in operations[: operations.index("CONV_2D")]) == folded
    assert "DEQUANTIZE" in operations[: operations.index("CONV_2D")]  # XNNPACK has no cast
    rng = np.random.default_rng(0)
    for height, width in ((45, 61), (64, 32), (33, 96)):
        image = rng.integers(0, 256, (1, height, width, 3), np.uint8)
        options = {"score_threshold": np.float32(0), "nms_threshold": np.float32(0.99)}
        outputs = run(path, image, windows=np.array([[0, 0, width, height]], np.float32), **options)
        expected = python(model, image, score=0.0, nms=0.99, most=50)
        most = min(20, int(outputs["count"][0]))
        np.testing.assert_allclose(outputs["scores"][0, :most], expected["scores"][0, :most], atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_faces_as_python(exported, bundled_model, photo, threads):
    outputs = run(exported, photo, threads)
    assert outputs["count"] == 1
    assert_same(outputs, python(bundled_model, photo))


def test_thresholds_and_window_are_inputs(exported, bundled_model, photo):
    window = (0, 0, 150, 200)  # cuts the face
    inputs = {"windows": np.array([window], np.float32), "nms_threshold": np.float32(0.9)}
    outputs = run(exported, photo, score_threshold=np.float32(0.02), **inputs)
    expected = python(bundled_model, photo, window, score=0.02, nms=0.9)
    assert outputs["count"] > 5 and outputs["boxes"].max() == 150
    assert_same(outputs, expected)
    assert run(exported, photo, score_threshold=np.float32(1), **inputs)["count"] == 0


def test_boxes_outside_the_window_are_no_faces(exported, photo):
    window = (0, 0, 90, 320)  # beside the face
    inputs = {"windows": np.array([window], np.float32), "nms_threshold": np.float32(0.4)}
    outputs = run(exported, photo, score_threshold=np.float32(0.5), **inputs)
    assert outputs["count"] == 0
    assert run(exported, photo)["count"] == 1


def test_overlap_counts_pixels_inclusively(exported, bundled_model):
    """One more on widths and heights moves the overlap of small boxes past many a threshold."""
    image = golden_image()[None]
    inputs = {"windows": np.array([[0, 0, SIDE, SIDE]], np.float32), "score_threshold": np.float32(0.05)}
    counts = {}
    for threshold in np.linspace(0.1, 0.95, 18, dtype=np.float32):
        outputs = run(exported, image, nms_threshold=threshold, **inputs)
        expected = python(bundled_model, image, score=0.05, nms=threshold)
        assert_same(outputs, expected)
        counts[threshold] = int(expected["count"][0])
    assert len(set(counts.values())) > 5


def test_no_face_is_count_zero_and_nothing_else(exported, photo):
    outputs = run(exported, photo * 0)
    assert all(not value.any() for value in outputs.values())


def test_any_size_finds_pythons_faces_at_every_size(any_size_tflite, bundled_model):
    """One file and one interpreter from 16 x 16 up, odd sides, fewer anchors than `top_k`, with and without faces."""
    runner = Interpreter(str(any_size_tflite)).get_signature_runner("serving_default")
    image, counts = golden_image(), []
    for height, width in ((16, 16), (320, 320), (17, 33), (211, 273), (1, 1), (64, 300), (319, 321), (320, 320)):
        window = np.resize(image, (height, width, 3)) if width > SIDE else image[:height, :width]
        outputs = runner(images=window[None])
        assert_same(outputs, python(bundled_model, window[None]))
        assert outputs["boxes"].shape == (1, 750, 4)
        counts.append(int(outputs["count"][0]))
    assert counts[0] == counts[4] == 0 and counts[1] == counts[7] == 4 and counts[3] > 0


def test_any_size_takes_the_number_of_faces(any_size_tflite, bundled_model):
    image = golden_image()[None]
    inputs = {"windows": np.array([[0, 0, SIDE, SIDE]], np.float32), "nms_threshold": np.float32(0.4)}
    for most in (1, 3, 4, 9):
        outputs = run(any_size_tflite, image, score_threshold=np.float32(0.5), max_detections=np.int32(most), **inputs)
        assert outputs["boxes"].shape == (1, most, 4) and outputs["count"] == min(most, 4)
        assert_same(outputs, python(bundled_model, image, most=most))
    huge = run(any_size_tflite, image, score_threshold=np.float32(0), max_detections=np.int32(2**31 - 1), **inputs)
    assert huge["boxes"].shape == (1, 5000, 4)  # memory stays bounded


def test_wider_photos_and_crops_at_any_size(development_data, any_size_tflite, bundled_model):
    """Within 0.05 pixels and 0.001 of score on the sample photos and on windows cut out of them."""
    runner = Interpreter(str(any_size_tflite), num_threads=2).get_signature_runner("serving_default")
    photos = [load_image(path) for path in sorted((development_data / "wider_val_samples").glob("*.jpg"))]
    random, faces = np.random.default_rng(0), 0
    for number in range(len(photos) + 25):
        photo = photos[number % len(photos)]
        if number >= len(photos):
            height, width = (int(random.integers(16, side + 1)) for side in photo.shape[:2])
            top, left = (int(random.integers(0, n - m + 1)) for n, m in zip(photo.shape, (height, width), strict=False))
            photo = photo[top : top + height, left : left + width]
        outputs = runner(images=np.ascontiguousarray(photo[None]))
        assert_same(outputs, python(bundled_model, photo[None]))
        faces += int(outputs["count"][0])
    assert faces > 300


def test_sides_need_not_be_multiples_of_32(bundled_model, photo, tmp_path):
    odd = photo[:, :211, 47:]
    options = ExportOptions(size=odd.shape[1:3], max_detections=3, score_threshold=0.01)
    path = export_tflite(bundled_model, tmp_path / "odd.tflite", options)
    outputs = run(path, odd)
    assert_same(outputs, python(bundled_model, odd, score=0.01, most=3))
    assert outputs["boxes"].shape == (1, 3, 4)


@pytest.mark.parametrize(
    "architecture",
    [
        {"anchors": {"P3": (16,)}, "num_filters": 8},
        {
            "backbone": "mobilenet_v1_050",
            "anchors": {"P4": (32,), "P5": (64, 90), "P6": (128,)},
            "dtype": "mixed_bfloat16",
        },
    ],
)
@pytest.mark.parametrize("size", [pytest.param((70, 90), marks=pytest.mark.slow), None])
def test_other_architectures(architecture, size, photo, tmp_path):
    model = RetinaFace(**architecture)
    small = photo[:, 20:90, 100:190]
    options = ExportOptions(size=size, score_threshold=0, max_detections=5)
    path = export_tflite(model, tmp_path / "other.tflite", options)
    same = RetinaFace(**{**architecture, "dtype": "float32"})
    same.set_weights(model.get_weights())
    outputs, expected = run(path, small), python(same, small, score=0, most=5)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-5)


def test_half_precision(half, bundled_model, photo):
    assert_same(run(half, photo), python(bundled_model, photo), pixels=0.5, score=5e-3)


def test_dynamic_range(bundled_model, photo, tmp_path):
    path = export_tflite(bundled_model, tmp_path / "dynamic.tflite", OPTIONS, quantize="dynamic")
    assert path.stat().st_size < 0.4 * WEIGHTS
    assert_near(run(path, photo), python(bundled_model, photo))


def assert_near(outputs, expected):
    """One face, its box and landmarks within 3 % of its size."""
    assert outputs["count"] == expected["count"] == 1
    box = expected["boxes"][0, 0]
    size = np.sqrt(np.prod(box[2:] - box[:2]))
    for name in ("boxes", "landmarks"):
        np.testing.assert_allclose(outputs[name][0, 0], expected[name][0, 0], atol=0.03 * size)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=0.02)


def test_integers_keep_the_landmarks(integers, bundled_model, photo):
    assert count_operations(integers, "tflite")["QUANTIZE"] == 2
    assert_near(run(integers, photo), python(bundled_model, photo))


def test_equalized_network_is_the_same_function_with_evener_channels(bundled_model, calibration, photo):
    network = bundled_model.fold()
    expected = network(photo)
    before = spread(network)
    equalize(network, calibration[:2])
    assert spread(network) < 0.5 * before
    for name, value in network(photo).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-3)


def spread(network):
    """How much the channels of the first convolution differ in what they make of its inputs."""
    sizes = np.abs(network.get_layer("body_stage1_0").convolution.kernel.numpy()).sum(axis=(0, 1, 2))
    return sizes.max() / sizes.min()


def test_metadata_is_behind_the_model_and_in_its_schema(exported_tflite):
    with zipfile.ZipFile(exported_tflite) as archive:
        assert archive.namelist() == ["labels.txt", "retinaface.json"]
        assert archive.read("labels.txt") == b"face\n"
    model = flatbuffer_utils.read_model(str(exported_tflite))
    (entry,) = [one for one in model.metadata if one.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert content[4:8] == b"M001"
    for text in (b"labels.txt", b"retinaface.json", b"left_eye, right_eye, nose, left_mouth, right_mouth"):
        assert text in content


def test_same_model_is_same_bytes(bundled_model, exported_tflite, tmp_path):
    assert export_tflite(bundled_model, tmp_path / "again.tflite", OPTIONS).read_bytes() == exported_tflite.read_bytes()


def test_parts_that_do_not_fit_are_refused():
    def part(shape):
        traced = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec(shape, name="x")])
        return convert(traced.get_concrete_function())

    front = part([2, 3])
    append_subgraph(front, part([2, 3]), {0: front.subgraphs[0].outputs[0]})
    assert len(front.subgraphs[0].operators) == 2
    with pytest.raises(ValueError, match=r"do not fit: \[2, 3\] into \[2, 4\]"):
        append_subgraph(front, part([2, 4]), {0: front.subgraphs[0].outputs[0]})


@pytest.mark.parametrize(
    ("options", "others", "message"),
    [
        (OPTIONS, {"quantize": "int4"}, "quantize"),
        (OPTIONS, {"quantize": "fp16", "calibration": "."}, "calibration"),
        (OPTIONS, {"quantize": "int8"}, "--calibration DIR is missing"),
        (OPTIONS, {"quantize": "int8", "calibration": "missing"}, "folder of photos"),
        (OPTIONS, {"quantize": "int8", "calibration": "empty"}, "at least 8 photos.* empty: 0 photos"),
        (OPTIONS, {"quantize": "int8", "calibration": "broken"}, "at least 8 photos.* broken: 1 photo"),
    ],
)
def test_what_can_not_be_exported(bundled_model, tmp_path, monkeypatch, options, others, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "photo.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=message) as caught:
        export_tflite(bundled_model, tmp_path / "faces.tflite", options, **others)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "faces.tflite").exists()


def test_calibration_says_how_many_photos_it_used(bundled_model, calibration, tmp_path):
    for number, photo in enumerate(calibration):
        Image.fromarray(photo).save(tmp_path / f"{number}.jpg")
    (tmp_path / "damaged.jpg").write_bytes(b"no photo")
    given = read_calibration_photos(tmp_path, None, (0, 0, 0))
    assert (len(given.photos), given.found, len(given.unreadable)) == (8, 9, 1)
    assert {photo.shape for photo in given.photos} == {(640, 640, 3)} and "damaged.jpg" in given.unreadable[0]
    assert str(given).startswith("calibrated on 8 of 9 photos; 1 can't be read, such as ")
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(ValueError, match=r"7 photos of 8 can be used, such as .*damaged\.jpg"):
        read_calibration_photos(tmp_path, None, (0, 0, 0))


def test_the_command(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    command = ["export", "tflite", "--preset", "mobilenet025_wider", "--size", "64x48"]
    command += ["--output", str(tmp_path / "faces.tflite")]
    assert main([*command, "--quantize", "int8", "--calibration", str(tmp_path / "photos")]) == 2
    assert "at least 8 photos" in capsys.readouterr().err
    assert list(tmp_path.glob("*.tflite")) == []
    assert main([*command, "--quantize", "fp16"]) == 0
    assert f"{tmp_path / 'faces.tflite'}: 0.91 MB" in capsys.readouterr().out
    assert load(tmp_path / "faces.tflite").metadata["quantization"] == {"scheme": "fp16"}
