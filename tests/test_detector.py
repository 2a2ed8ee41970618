"""RetinaFace as a Keras model: saved, loaded, configured, changed."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from faces_3d import small_topology

from retinaface_tf import RetinaFace, load
from retinaface_tf.dense.branch import complete_dense
from retinaface_tf.image import ImageError

ODD = {
    "backbone": "resnet18",
    "anchors": {"P4": [30.0, 40.0, 50.0], "P5": [100.0]},
    "num_filters": 12,
    "shared_context": True,
    "deformable": "v1",
    "cascade": True,
    "dense": complete_dense({"topology": small_topology().to_dict(), "embedding": 3, "width": 4}),
    "pixel_mean": [1.0, 2.0, 3.0],
    "pixel_std": [4.0, 5.0, 6.0],
    "variances": [0.3, 0.4],
    "folded": True,
    "dtype": "mixed_bfloat16",
    "name": "odd",
    "trainable": False,
}


def test_config_keeps_every_argument():
    model = RetinaFace(**ODD)
    assert model.get_config() == ODD
    copy = RetinaFace.from_config(model.get_config())
    assert copy.get_config() == ODD
    assert copy.anchor_generator.sizes == {"P4": (30, 40, 50), "P5": (100,)}
    assert copy.get_layer("pixels").mean == (1, 2, 3)
    assert copy.get_layer("body_stem").compute_dtype == "bfloat16"


@pytest.mark.slow
def test_a_saved_model_opens_with_keras_and_the_layers_alone(bundled_model, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 37, 50, 3), np.uint8)
    bundled_model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np, retinaface_tf.layers\n"
        "model = keras.saving.load_model('model.keras')\n"
        "np.savez('out.npz', **{k: v.numpy() for k, v in model(np.load('images.npy')).items()})\n"
        "print(type(model).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == "RetinaFace", result.stderr
    loaded = np.load(tmp_path / "out.npz")
    for name, value in bundled_model(images).items():
        np.testing.assert_array_equal(loaded[name], value)


def test_from_preset_opens_a_saved_model_and_may_change_its_dtype(bundled_model, tmp_path, sample_photo):
    bundled_model.save(tmp_path / "own.keras")
    own = RetinaFace.from_preset(tmp_path / "own.keras")
    np.testing.assert_array_equal(own.detect(sample_photo).boxes, bundled_model.detect(sample_photo).boxes)
    mixed = RetinaFace.from_preset(tmp_path / "own.keras", dtype="mixed_bfloat16")
    assert mixed.get_config()["dtype"] == "mixed_bfloat16"
    assert len(mixed.detect(sample_photo)) == 1
    fresh = RetinaFace.from_preset(tmp_path / "own.keras", load_weights=False)
    assert len(fresh.detect(sample_photo, score_threshold=0.9)) != 1


def test_another_keras_file_is_refused(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match=r"contains a Sequential\. Expected a RetinaFace"):
        RetinaFace.from_preset(tmp_path / "dense.keras")


def test_a_folded_model_detects_and_saves(bundled_model, tmp_path, sample_photo):
    folded = bundled_model.fold()
    folded.save(tmp_path / "folded.keras")
    for model in (folded, RetinaFace.from_preset(tmp_path / "folded.keras")):
        np.testing.assert_allclose(
            model.detect(sample_photo).boxes, bundled_model.detect(sample_photo).boxes, atol=1e-3
        )


def test_detect_notices_changed_weights(sample_photo, tmp_path):
    model = RetinaFace.from_preset("mobilenet025_wider")
    original = model.get_weights()
    model.save_weights(tmp_path / "original.weights.h5")
    first = model.detect(sample_photo)

    model.set_weights([w * 0 for w in original])
    assert len(model.detect(sample_photo, score_threshold=0.6)) == 0
    model.load_weights(tmp_path / "original.weights.h5")
    np.testing.assert_array_equal(model.detect(sample_photo).boxes, first.boxes)

    head = model.get_layer("box_head_P4").convolution.bias
    kernel = model.get_layer("box_head_P4").convolution.kernel
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.apply([np.ones(kernel.shape, "float32"), np.ones(head.shape, "float32")], [kernel, head])
    assert np.abs(model.detect(sample_photo).boxes - first.boxes).max() > 0.01


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"score_threshold": 1.5}, r"`score_threshold` must be a number in \[0, 1\].*1.5"),
        ({"score_threshold": "0.5"}, "score_threshold='0.5'"),
        ({"nms_threshold": -0.1}, "nms_threshold=-0.1"),
        ({"nms_threshold": float("nan")}, "nms_threshold=nan"),
        ({"max_detections": 0}, "max_detections=0"),
        ({"max_detections": 2.5}, "max_detections=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"resize": 640}, "resize=640"),
        ({"resize": (900, 600)}, "short <= long"),
        ({"resize": (0, 600)}, r"resize=\(0, 600\)"),
    ],
)
def test_options_out_of_range(bundled_model, sample_photo, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        bundled_model.detect(sample_photo, **options)


def test_every_layer_is_built():
    """An unbuilt one makes Keras look for a batch to build it with, which fails with several workers."""
    model = RetinaFace()
    assert [layer.name for layer in model._flatten_layers() if not layer.built] == []


def test_resize_makes_no_photo_larger_than_the_limit():
    model = load("mobilenet025_wider", threads=1)
    photo = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(ImageError, match=r"makes it 1333332x999999, more than the limit of 50 megapixels"):
        model.detect(photo, resize=(999_999, 2_000_000))
    with pytest.raises(ImageError, match=r"makes it 160x120, more than the limit of 0\.01 megapixels"):
        model.detect(photo, resize=(120, 200), max_pixels=10_000)
    assert len(model.detect(photo, max_pixels=10)) == 0  # pixels in memory are not counted
