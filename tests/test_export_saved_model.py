"""The SavedModel: the faces that Python finds, from pixels and encoded photos, and what TensorFlow Serving needs."""

import io
import json
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from retinaface_tf.export.image_bytes import decode_or_flag
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.saved_model import export_saved_model
from retinaface_tf.image.loading import load_image
from retinaface_tf.loading import load

NAMES = ("boxes", "scores", "landmarks")


@pytest.fixture(scope="module")
def signatures(saved_model_detector):
    return saved_model_detector.runtime.signatures


@pytest.fixture(scope="module")
def photo(sample_photo):
    """Two faces, one of them cut by the frame, in a picture whose sides are not divisible by 32."""
    face = load_image(sample_photo)[30:230, 130:330]
    return np.concatenate([face, face[:, :101]], axis=1)


def encoded(image, form="PNG", **save):
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, form, **save)
    return buffer.getvalue()


def same(outputs, row, detections, tolerance=1e-3):
    count = int(outputs["count"][row])
    assert count == len(detections)
    for name in NAMES:
        values = outputs[name].numpy()[row]
        np.testing.assert_allclose(values[:count], getattr(detections, name), atol=tolerance)
        assert not values[count:].any(), f"{name} beyond the count"


def test_pixels_in_faces_out(signatures, bundled_model, photo):
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    outputs = signatures["serving_default"](images=tf.constant(np.stack([photo, mirrored, 0 * photo])))
    assert {name: (value.dtype.name, value.shape.as_list()) for name, value in outputs.items()} == {
        "boxes": ("float32", [3, 750, 4]),
        "scores": ("float32", [3, 750]),
        "landmarks": ("float32", [3, 750, 5, 2]),
        "count": ("int32", [3]),
    }
    found = bundled_model.detect([photo, mirrored, 0 * photo], resize=None, close_ups=False)
    assert len(found[0]) >= 1
    for row, detections in enumerate(found):
        same(outputs, row, detections)


def test_each_image_has_its_own_thresholds_and_window(signatures, bundled_model, photo):
    height, width = photo.shape[:2]
    outputs = signatures["detect"](
        images=tf.constant(np.stack([photo] * 3)),
        windows=tf.constant([[0, 0, width, height], [0, 0, width, height], [0, 0, 40, 30]], tf.float32),
        score_threshold=tf.constant([0.0, 0.5, 0.0]),
        nms_threshold=tf.constant([0.4, 0.1, 0.4]),
        max_detections=tf.constant([3, 50, 50]),
    )
    assert outputs["boxes"].shape == (3, 50, 4)
    loose = bundled_model.detect(photo, score_threshold=0, max_detections=3, resize=None, close_ups=False)
    assert len(loose) == 3
    same(outputs, 0, loose)
    same(outputs, 1, bundled_model.detect(photo, nms_threshold=0.1, resize=None, close_ups=False))
    assert outputs["boxes"].numpy()[2].max() <= 40


def test_bytes_of_any_size_with_a_bad_one_between(signatures, bundled_model, photo):
    good = [encoded(photo), encoded(photo[:90, :77], "JPEG")]
    cut = encoded(photo, "JPEG")
    outputs = signatures["serve_bytes"](image_bytes=tf.constant([good[0], b"no photo", good[1], cut[: len(cut) // 2]]))
    assert outputs["error"].numpy().tolist() == [False, True, False, True]
    assert outputs["size"].numpy().tolist() == [list(photo.shape[:2]), [0, 0], [90, 77], [0, 0]]
    for row, content in ((0, good[0]), (2, good[1])):
        same(outputs, row, bundled_model.detect(content, resize=None, close_ups=False))
    for row in (1, 3):
        assert outputs["count"][row] == 0
        assert not any(outputs[name].numpy()[row].any() for name in NAMES)
    assert {len(value) for value in outputs.values()} == {4}  # the batch in front of every output


def test_thresholds_for_bytes(signatures, bundled_model, photo):
    content = encoded(photo)
    outputs = signatures["detect_bytes"](
        image_bytes=tf.constant([content, content, b"no photo"]),
        score_threshold=tf.constant([0.02, 1.0, 0.0]),
        nms_threshold=tf.constant([0.4, 0.4, 0.4]),
        max_detections=tf.constant([7, 2, 2]),
    )
    assert outputs["boxes"].shape == (3, 7, 4)
    same(outputs, 0, bundled_model.detect(photo, score_threshold=0.02, max_detections=7, resize=None, close_ups=False))
    assert outputs["count"].numpy()[1:].tolist() == [0, 0]  # also where the score of everything is enough


@pytest.fixture(scope="module")
def decode():
    return tf.function(decode_or_flag, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def oriented(value, big=False, kind=3):
    """EXIF with an orientation among other tags, in either byte order."""
    order = ">" if big else "<"
    number = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    entries = [(0x010F, 2, 4, b"ab\0\0"), (0x0112, kind, 1, number), (0x011A, 3, 1, struct.pack(f"{order}HH", 6, 0))]
    table = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    head = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_all_eight_orientations_and_what_is_none(decode, form):
    picture = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    seen = set()
    for value in range(10):
        for big, kind in ((False, 3), (True, 3), (True, 4)):
            content = encoded(picture, form, exif=oriented(value, big, kind))
            image, error = decode(content)
            assert not error
            np.testing.assert_array_equal(image, load_image(content), err_msg=f"{value} {big} {kind}")
            seen.add(image.numpy().tobytes())
    assert len(seen) == 8


def png(depth, color, rows):
    """A PNG of 8 pixels a row, made by hand: Pillow writes few of the depths that it reads."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 8, len(rows), depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_every_kind_of_jpeg_and_png_is_decoded_as_pillow_does(decode, sample_photo):
    picture = Image.open(sample_photo).convert("RGB").crop((150, 40, 251, 127))
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    palette = picture.convert("P")
    rows = [bytes(range(17 * row, 17 * row + 16)) for row in range(5)]
    contents = {
        "jpeg 4:2:0": encoded(picture, "JPEG", quality=60, subsampling=2),
        "jpeg progressive": encoded(picture, "JPEG", progressive=True),
        "jpeg gray": encoded(picture.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "png alpha": encoded(clear),
        "png gray alpha": encoded(clear.convert("LA")),
        "png palette": encoded(palette),
        "png palette transparent": encoded(palette, transparency=3),
        "png color transparent": encoded(picture, transparency=picture.getpixel((0, 0))),
        "png 16 bits": png(16, 0, rows),
        **{f"png gray {depth} bits": png(depth, 0, [row[:depth] for row in rows]) for depth in (1, 2, 4, 8)},
    }
    for name, content in contents.items():
        image, error = decode(content)
        assert not error, name
        np.testing.assert_array_equal(image, load_image(content), err_msg=name)


def test_nothing_that_comes_in_ends_the_graph(decode):
    content = bytearray(encoded(np.zeros((20, 30, 3), np.uint8), "JPEG", exif=oriented(6)))
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = content.copy()
        for place in random.integers(2, 120, 6):
            damaged[place] = random.integers(0, 256)
        decode(bytes(damaged))
    bomb = encoded(Image.new("L", (10_000, 6_000)))
    for bad in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", encoded(np.zeros((4, 4, 3), np.uint8), "GIF"), bomb, bomb[:40]):
        image, error = decode(bad)
        assert error
        assert image.shape == (1, 1, 3)


def test_the_runtime_equals_the_model_close_ups_included(saved_model_detector, bundled_model, sample_photo):
    detector = saved_model_detector
    face = Image.open(sample_photo).convert("RGB").crop((158, 30, 298, 198))
    sources = [sample_photo, face.resize((700, 840)), np.zeros((50, 60, 3), np.uint8)]
    for options in ({}, {"close_ups": False, "score_threshold": 0.02}, {"resize": (300, 400), "max_detections": 1}):
        for one, other in zip(
            detector.detect(sources, **options), bundled_model.detect(sources, **options), strict=True
        ):
            for name in NAMES:
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-3)
    assert len(detector.detect(sources[1])) == 1  # a face larger than the network alone can see


def test_the_sample_photos(signatures, bundled_model, development_data):
    photos = sorted((development_data / "wider_val_samples").glob("*.jpg"))[:4]
    assert photos
    contents = [path.read_bytes() for path in photos]
    outputs = signatures["serve_bytes"](image_bytes=tf.constant(contents))
    for row, content in enumerate(contents):
        same(outputs, row, bundled_model.detect(content, resize=None, close_ups=False))


def test_warm_up_requests_replayed(exported_saved_model, signatures):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs the extra `serving`")
    file = exported_saved_model / "1" / "assets.extra" / "tf_serving_warmup_requests"
    seen = {}
    for record in tf.data.TFRecordDataset(str(file)):
        request = logs.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**inputs)
        seen[request.model_spec.signature_name] = outputs["count"].numpy().tolist()
    assert seen == {"serving_default": [1], "serve_bytes": [1], "detect": [1], "detect_bytes": [1]}


@pytest.mark.slow
def test_saved_model_cli_runs_it(exported_saved_model, sample_photo, tmp_path):
    np.save(tmp_path / "photos.npy", np.array([sample_photo.read_bytes(), b"no photo"]))
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]  # what `saved_model_cli` runs
    command += ["--dir", exported_saved_model / "1", "--tag_set", "serve", "--signature_def", "serve_bytes"]
    command += ["--inputs", f"image_bytes={tmp_path / 'photos.npy'}", "--outdir", tmp_path]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert np.load(tmp_path / "count.npy").tolist() == [1, 0]
    assert np.load(tmp_path / "error.npy").tolist() == [False, True]


def test_metadata(exported_saved_model):
    from retinaface_tf import presets

    metadata = json.loads((exported_saved_model / "1/assets.extra/retinaface.json").read_text("utf-8"))
    card = presets.load("mobilenet025_wider")
    assert metadata["weights_sha256"] == card["weights"]["sha256"]
    assert metadata["preset"] == "mobilenet025_wider"
    assert metadata["architecture"]["anchors"] == card["architecture"]["anchors"]
    assert (metadata["score_threshold"], metadata["nms_threshold"], metadata["max_detections"]) == (0.5, 0.4, 750)
    assert metadata["fill"] == [123, 117, 104]
    assert metadata["fixed"] == []


def test_options_of_the_export_and_the_next_version(bundled_model, exported_saved_model, photo, tmp_path):
    path = tmp_path / "mine"
    shutil.copytree(exported_saved_model, path)
    version = export_saved_model(bundled_model, path, ExportOptions(score_threshold=0, max_detections=4))
    assert version == path / "2"
    assert sorted(p.name for p in path.iterdir()) == ["1", "2"]
    assert version.stat().st_mode & 0o777 == (path / "1" / "assets.extra").stat().st_mode & 0o777
    detector = load(path)  # the newest
    assert len(detector.detect(photo)) == 4
    outputs = detector.runtime.signatures["serving_default"](images=tf.constant(photo[None]))
    assert outputs["boxes"].shape == (1, 4, 4)
    assert len(detector.detect(photo, score_threshold=0.5)) == len(bundled_model.detect(photo))


@pytest.fixture
def quick(monkeypatch):
    """Exports of a graph without a network."""
    nothing = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([], tf.float32)])
    monkeypatch.setattr("retinaface_tf.export.saved_model.build_signatures", lambda *_: {"serving_default": nothing})


def test_replacing_takes_the_newest_version(bundled_model, tmp_path, quick):
    for number in ("1", "2"):
        export_saved_model(bundled_model, tmp_path / "x", ExportOptions(preset=number))
    version = export_saved_model(bundled_model, tmp_path / "x", ExportOptions(preset="3"), replace=True)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["1", "2"]
    presets = [json.loads((version.parent / n / "assets.extra/retinaface.json").read_text())["preset"] for n in "12"]
    assert presets == ["1", "3"]


def test_a_failed_export_leaves_nothing(bundled_model, tmp_path, monkeypatch, quick):
    def fail(folder):
        raise OSError("no space left")

    monkeypatch.setattr("retinaface_tf.export.saved_model.write_warm_up", fail)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(bundled_model, tmp_path / "new", ExportOptions())
    (tmp_path / "old" / "1").mkdir(parents=True)
    (tmp_path / "old" / "1" / "file").touch()
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(bundled_model, tmp_path / "old", ExportOptions(), replace=True)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["old", "old/1", "old/1/file"]


def test_a_size_is_refused(bundled_model, tmp_path):
    with pytest.raises(ValueError, match="any size: leave `size` out"):
        export_saved_model(bundled_model, tmp_path / "x", ExportOptions(size=(480, 640)))
    assert not (tmp_path / "x").exists()
