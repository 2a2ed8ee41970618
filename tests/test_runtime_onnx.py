"""An ONNX file in ONNX Runtime and in OpenVINO: the faces of `RetinaFace.detect`, without TensorFlow."""

import os
import pickle
import select
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image
from wider_tree import DATA, needs_data

from retinaface_tf import load
from retinaface_tf.cli.main import main
from retinaface_tf.image.loading import load_image

RUNTIMES = ["onnxruntime", "openvino"]
PIXELS = {"onnxruntime": 0.05, "openvino": 0.5}
SCORE = 1e-3


@pytest.fixture(scope="module")
def photo(sample_photo):
    return load_image(sample_photo)


@pytest.fixture(scope="module", params=RUNTIMES)
def opened(request, bundled_onnx):
    return load(bundled_onnx, runtime=request.param, threads=1), PIXELS[request.param]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """The preset for 320 x 256 pixels alone, made by the command."""
    path = tmp_path_factory.mktemp("fixed") / "model.onnx"
    arguments = ["--preset", "mobilenet025_wider", "--output", str(path), "--size", "320x256", "--max-detections", "20"]
    assert main(["export", "onnx", *arguments]) == 0
    assert main(["export", "onnx", *arguments]) == 2  # it exists
    return path


def same(found, expected, pixels):
    assert (len(found), found.width, found.height) == (len(expected), expected.width, expected.height)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=pixels)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE)
    for name in ("boxes", "scores", "landmarks"):
        assert getattr(found, name).dtype == np.float32


def resized(photo, width, height):
    return np.asarray(Image.fromarray(photo).resize((width, height)))


def crowd(photo):
    """48 small copies of the face, each of another size and so of another score, 640 x 480."""
    face = Image.fromarray(photo[10:210, 130:330])
    canvas = Image.new("RGB", (640, 480))
    for i in range(48):
        canvas.paste(face.resize((80 - i, 80 - i)), (i % 8 * 80, i // 8 * 80))
    return np.asarray(canvas)


def test_odd_sizes_alone_and_in_a_list(opened, bundled_model, photo):
    detector, pixels = opened
    images = [resized(photo, *size) for size in ((512, 512), (97, 131), (333, 201), (31, 33), (1, 1), (333, 201))]
    images += [photo[:, ::-1], np.zeros((201, 333, 3), np.uint8)]
    expected = [bundled_model.detect(image) for image in images]
    assert sum(map(len, expected)) == 6  # enlarged, the face in 31x33 is found too
    for image, faces in zip(images, expected, strict=True):
        same(detector.detect(image), faces, pixels)
    for found, faces in zip(detector.detect(images, batch_size=3), expected, strict=True):
        same(found, faces, pixels)


def test_thresholds(opened, bundled_model, photo):
    detector, pixels = opened
    image = crowd(photo)
    counts = set()
    for options in (
        {},
        {"score_threshold": 0.02},
        {"score_threshold": 0.02, "nms_threshold": 0.05},
        {"score_threshold": 0.9, "max_detections": 5},
        {"score_threshold": 1.0},
        {"resize": (240, 320)},
    ):
        expected = bundled_model.detect(image, **options)
        same(detector.detect(image, **options), expected, pixels)
        counts.add(len(expected))
    assert len(counts) >= 4, counts


def test_close_ups(opened, bundled_model, photo):
    detector, pixels = opened
    image = resized(photo[57:177, 178:273], 760, 960)
    assert len(bundled_model.detect(image)) == 1 != len(bundled_model.detect(image, close_ups=False))
    same(detector.detect(image), bundled_model.detect(image), pixels)
    same(detector.detect(image, close_ups=False), bundled_model.detect(image, close_ups=False), pixels)


@needs_data("wider_val_samples")
def test_sample_photos(opened, bundled_model):
    detector, pixels = opened
    paths = sorted((DATA / "wider_val_samples").rglob("*.jpg"))
    assert paths
    for path in paths:
        same(detector.detect(path), bundled_model.detect(path), pixels)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_of_one_size_takes_every_photo(fixed, runtime, bundled_model, photo):
    detector = load(fixed, runtime=runtime)
    assert detector.metadata["input"]["size"] == [256, 320]
    image = resized(photo, 320, 256)
    same(detector.detect(image), bundled_model.detect(image, resize=None), PIXELS[runtime])
    assert len(detector.detect(crowd(photo))) <= 20
    small, large = photo[30:230, 130:330], photo
    for found, expected in zip(
        detector.detect([small, large]), bundled_model.detect([small, large], resize=None), strict=True
    ):
        assert len(found) == len(expected) == 1
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=6)


def test_no_tensorflow(bundled_onnx, sample_photo):
    code = (
        "import sys, retinaface_tf\n"
        f"print(len(retinaface_tf.load({str(bundled_onnx)!r}).detect({str(sample_photo)!r})))\n"
        "print(sorted({'tensorflow', 'keras', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split("\n")[:2] == ["1", "[]"], result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_damaged_and_foreign_files_are_one_line(bundled_onnx, tmp_path, runtime):
    content = bundled_onnx.read_bytes()
    foreign = onnx.load(bundled_onnx)
    del foreign.metadata_props[:]
    for name, bytes_ in {
        "empty": b"",
        "text": b"no model at all",
        "cut": content[: len(content) // 2],
        "foreign": foreign.SerializeToString(),
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(bytes_)
        with pytest.raises(ValueError, match=f"{name}.onnx: ") as raised:
            load(path, runtime=runtime)
        assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.onnx", runtime=runtime)


@pytest.mark.parametrize("runtime, package", [("onnxruntime", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_names_its_extra(bundled_onnx, monkeypatch, runtime, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'retinaface-tf\[{runtime}\]'"):
        load(bundled_onnx, runtime=runtime)


def test_an_unknown_runtime(bundled_onnx, tmp_path):
    with pytest.raises(ValueError, match="`runtime` must be"):
        load(bundled_onnx, runtime="tensorrt")
    with pytest.raises(ValueError, match=r"has no bundled \.onnx"):
        load("mobilenet025_wider", runtime="openvino")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no POSIX signals")
def test_a_signal_after_openvino_models_have_gone_is_handled(bundled_onnx):
    """Each gave the thread a stack for signals, and the last to go brought back one that was gone."""
    code = (
        "import gc, os, signal, sys, retinaface_tf\n"
        "one, two = (retinaface_tf.load(sys.argv[1], runtime='openvino') for _ in range(2))\n"
        "del one; gc.collect()\n"
        "del two; gc.collect()\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('handled'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(bundled_onnx)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr


def test_an_onnx_detector_pickles_and_works_after_fork(bundled_onnx, sample_photo):
    pytest.importorskip("onnxruntime")
    detector = load(bundled_onnx, threads=2)
    expected = detector.detect(sample_photo)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.detect(sample_photo).boxes, expected.boxes)
    if not hasattr(os, "fork"):
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, b"%d" % len(detector.detect(sample_photo)))
        finally:
            os._exit(0)
    ready, _, _ = select.select([read], [], [], 120)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready and os.read(read, 9) == b"1"
