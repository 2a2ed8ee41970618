"""LiteRT behind `detect`: the faces of `RetinaFace.detect`, without TensorFlow."""

import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from retinaface_tf import load
from retinaface_tf.image.loading import load_image
from retinaface_tf.inference import tflite

# A small install is one without these; nothing that is run in it may want them.
SMALL_INSTALL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "scipy", "tensorflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from retinaface_tf.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def detector(exported_tflite):
    return load(exported_tflite)


@pytest.fixture(scope="module")
def photo(sample_photo):
    """A face in a photo that fits into 320 x 320 as it is, its sides not divisible by 32."""
    return load_image(sample_photo)[20:310, 70:387]


def assert_same(found, expected, pixels=0.05):
    assert len(found) == len(expected)
    edge = [found.width, found.height] * 2  # Python may have seen a larger canvas
    np.testing.assert_allclose(found.boxes, np.minimum(expected.boxes, edge), atol=pixels)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


def canvas(photo):
    whole = np.full((320, 320, 3), (123, 117, 104), np.uint8)
    whole[: photo.shape[0], : photo.shape[1]] = photo
    return whole


def test_a_photo_that_fits_is_seen_as_it_is(detector, bundled_model, photo):
    found = detector.detect(photo)
    assert len(found) == 1
    assert (found.width, found.height) == (317, 290)
    assert_same(found, bundled_model.detect(canvas(photo), resize=None))


def test_a_photo_that_does_not_fit_is_shrunk_and_its_faces_restored(detector, bundled_model, sample_photo):
    found = detector.detect(sample_photo)
    assert_same(found, bundled_model.detect(sample_photo, resize=(320, 320)), pixels=0.1)
    assert (found.width, found.height) == (512, 512)


def test_a_face_that_fills_a_large_photo_is_one_face(detector, sample_photo):
    face = Image.fromarray(load_image(sample_photo)[50:190, 170:290]).resize((1080, 1260))
    (box,) = detector.detect(face).boxes
    assert (box[2:] - box[:2]).prod() > 0.4 * 1080 * 1260


def test_options_are_those_of_detect(detector, bundled_model, photo):
    for options in ({"score_threshold": 0.02}, {"score_threshold": 0.02, "nms_threshold": 0.8, "max_detections": 3}):
        found = detector.detect(photo, close_ups=False, **options)
        assert_same(found, bundled_model.detect(canvas(photo), resize=None, close_ups=False, **options))
    assert len(found) == 3
    with pytest.raises(ValueError, match="`max_detections` is fixed in this artifact, at 750"):
        detector.detect(photo, max_detections=751)


def test_lists_threads_and_callers_at_once_change_nothing(exported_tflite, detector, photo):
    photos = [photo, np.ascontiguousarray(photo[:, ::-1]), photo[:200], 0 * photo]
    expected = [detector.detect(one) for one in photos]
    for threads in (1, 2):
        for found, one in zip(load(exported_tflite, threads=threads).detect(photos), expected, strict=True):
            assert_same(found, one, pixels=1e-3)
    with ThreadPoolExecutor(4) as pool:
        for found, one in zip(pool.map(detector.detect, photos * 3), expected * 3, strict=True):
            np.testing.assert_array_equal(found.boxes, one.boxes)


def test_wider_photos(development_data, bundled_model, tmp_path):
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite

    detector = load(
        export_tflite(bundled_model, tmp_path / "faces.tflite", ExportOptions(size=(800, 1024), max_detections=400))
    )
    faces = 0
    for path in sorted((development_data / "wider_val_samples").rglob("*.jpg"))[:5]:
        photo = load_image(path)[:800]
        whole = np.full((800, 1024, 3), (123, 117, 104), np.uint8)
        whole[: photo.shape[0], : photo.shape[1]] = photo
        expected = bundled_model.detect(whole, close_ups=False)
        assert_same(detector.detect(photo, close_ups=False), expected)
        faces += len(expected)
    assert faces > 50


def test_metadata(detector):
    assert detector.metadata["input"]["size"] == [320, 320]
    assert detector.metadata["fixed"] == ["max_detections"]
    assert detector.metadata["top_k"] == 2 * (40 * 40 + 20 * 20 + 10 * 10)  # every anchor, since they are under 5,000
    assert detector.metadata["quantization"] is None


def test_files_that_are_no_artifact(exported_tflite, tmp_path):
    content = exported_tflite.read_bytes()
    files = {"text.tflite": b"hello", "bare.tflite": content[: content.index(b"PK\x03\x04")], "empty.tflite": b""}
    for name, start in files.items():
        (tmp_path / name).write_bytes(start)
        with pytest.raises(ValueError, match=f"{name}: not an artifact") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"\0" * 1000)
    with zipfile.ZipFile(exported_tflite) as source, zipfile.ZipFile(damaged, "a") as target:
        target.writestr("retinaface.json", source.read("retinaface.json"))
    with pytest.raises(ValueError, match=r"damaged\.tflite: LiteRT can't open this model") as caught:
        load(damaged)
    assert "\n" not in str(caught.value)
    other = tmp_path / "other.tflite"  # a model whose metadata are those of another size
    other.write_bytes(content[: content.index(b"PK\x03\x04")])
    with zipfile.ZipFile(exported_tflite) as source, zipfile.ZipFile(other, "a") as target:
        metadata = json.loads(source.read("retinaface.json"))
        metadata["input"]["size"] = [32, 32]
        target.writestr("retinaface.json", json.dumps(metadata))
    with pytest.raises(ValueError, match=r"other\.tflite: LiteRT can't run this model") as caught:
        load(other)
    assert "\n" not in str(caught.value)


def test_without_litert_the_extra_is_named(exported_tflite, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        load(exported_tflite)


def small_install(*words):
    command = [sys.executable, "-c", SMALL_INSTALL, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_needs_no_tensorflow(exported_tflite, sample_photo, tmp_path):
    shutil.copy(exported_tflite, tmp_path / "faces.tflite")
    result = small_install("detect", "--model", tmp_path / "faces.tflite", sample_photo, "--json", "-")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(json.loads(result.stdout)[0]["faces"]) == 1


def test_pictures_and_crops_need_no_tensorflow(exported_tflite, sample_photo, tmp_path):
    shutil.copy(exported_tflite, tmp_path / "faces.tflite")
    output = tmp_path / "out"
    words = ("--model", tmp_path / "faces.tflite", sample_photo, "--output", output, "--crops", "--quiet")
    for more in ((), ("--blur",)):
        result = small_install("detect", *words, *more)
        assert (result.returncode, result.stderr) == (0, "")
        with Image.open(output / "crops" / "astronaut_0.png") as crop:
            assert crop.size == (112, 112)
    result = small_install("detect", *words, "--obj")
    line = f"--obj needs a model with a dense branch, and {tmp_path / 'faces.tflite'} has none: see docs/dense.md"
    assert (result.returncode, result.stderr) == (2, f"retinaface-tf: {line}\n")


def test_what_needs_tensorflow_says_so_in_a_line(sample_photo):
    result = small_install("detect", sample_photo)  # a preset's own file needs none
    assert (result.returncode, result.stderr) == (0, "")
    for words in (("--runtime", "keras"), ("--preset", "resnet50")):
        result = small_install("detect", sample_photo, *words)
        assert result.returncode == 2
        assert "pip install 'retinaface-tf[tensorflow]'" in result.stderr and result.stderr.count("\n") == 1


def test_without_tensorflow_convert_begins_no_folder_and_pose_names_scipy(sample_photo, tmp_path):
    (tmp_path / "faces.csv").write_text(f"file,x1,y1,x2,y2\n{sample_photo.name},178,57,273,177\n")
    words = ("--images", sample_photo.parent, "--annotations", tmp_path / "faces.csv", "--output", tmp_path / "shards")
    result = small_install("convert", "custom", *words)
    assert (result.returncode, (tmp_path / "shards").exists()) == (2, False)
    assert "mobilenet025_wider" in result.stderr and result.stderr.count("\n") == 1
    result = small_install("detect", sample_photo, "--json", "-", "--pose")
    assert result.returncode == 2 and result.stderr.endswith("pip install scipy\n")


def test_threads_run_at_the_same_time_and_agree_to_the_bit(detector, photo):
    expected = detector.detect(photo)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: detector.detect(photo), range(12)):
            for name in ("boxes", "scores", "landmarks"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert 1 <= sum(map(len, detector.runtime._idle.values())) <= 5


def test_calls_at_the_same_time_take_a_core_each_and_large_images_run_one_at_a_time(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    model = load("mobilenet025_wider").runtime
    monkeypatch.setattr(model, "_open", lambda threads: threads)
    with model._interpreter(300_000) as first, model._interpreter(300_000) as second:
        assert (first, second) == (2, 1)
    with model._interpreter(tflite.LARGE_PIXELS + 1) as threads:
        assert threads == 2
        assert not model._large.acquire(blocking=False)  # another would wait
        with model._interpreter(300_000) as threads:
            assert threads == 1
    assert model._large.acquire(blocking=False)


def test_a_detector_pickles_as_its_path(exported_tflite, photo):
    detector = load(exported_tflite, threads=1)
    again = pickle.loads(pickle.dumps(detector))
    assert again.runtime.threads == 1
    np.testing.assert_array_equal(again.detect(photo).boxes, detector.detect(photo).boxes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_detects(exported_tflite, photo):
    detector = load(exported_tflite, threads=2)
    expected = detector.detect(photo)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(detector.detect(photo).boxes, expected.boxes)
            os.write(write, b"same" if same else b"other")
        finally:
            os._exit(0)
    ready, _, _ = select.select([read], [], [], 120)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready and os.read(read, 9) == b"same"
