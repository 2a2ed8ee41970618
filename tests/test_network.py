"""The whole network: every backbone and layout builds, counts and folds as it should."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_training import small_batch

import retinaface_tf
from retinaface_tf import RetinaFace
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.network.backbones import BACKBONES, Backbone, get_backbone
from retinaface_tf.network.conv_block import ConvBlock, zero_kernels
from retinaface_tf.training.batch_norm import freeze
from retinaface_tf.training.objective import Objective

# Trainable parameters of the bodies alone. ResNets: torchvision's counts without the classifier
# (11,689,512 - 513,000, 21,797,672 - 513,000, 25,557,032, 44,549,160 and 60,192,808 - 2,049,000).
BODY_PARAMETERS = {
    "mobilenet_v1_025": 213_072,
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
}
SMALL = {"backbone": "mobilenet_v1_025", "num_filters": 8}


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def randomize_normalisation(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "normalisation" in variable.path:
            low, high = (0.7, 1.4) if variable.path.endswith(("gamma", "variance")) else (-0.3, 0.3)
            variable.assign(random.uniform(low, high, variable.shape))


DEEP = ("resnet34", "resnet101", "resnet152")  # take 0.1 to 0.2 GB each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in BACKBONES]
)
def test_backbones(name):
    images = keras.Input((None, None, 3))
    with zero_kernels():  # shapes alone count here
        body = keras.Model(images, get_backbone(name).build(images, folded=False, dtype=None))
    if name in BODY_PARAMETERS:
        assert trainable(body) == BODY_PARAMETERS[name]
    shapes = {key: value.shape for key, value in body(keras.KerasTensor((1, 65, 95, 3))).items()}
    assert {key: shape[1:3] for key, shape in shapes.items()} == {
        f"C{level}": (-(-65 // 2**level), -(-95 // 2**level)) for level in range(2, 6)
    }


def test_widths_scale_the_channels():
    images = keras.Input((None, None, 3))
    channels = [
        BACKBONES[f"mobilenet_v1_{w}"].build(images, folded=False, dtype=None)["C5"].shape[-1]
        for w in ("025", "050", "100")
    ]
    assert channels == [256, 512, 1024]


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mobilenet_v1_025.*resnet152.*Received: backbone='vgg'"):
        RetinaFace(backbone="vgg")


def test_published_parameter_counts(bundled_model):
    assert trainable(bundled_model) == 426_608
    assert bundled_model.fold().count_params() == 423_264
    assert trainable(RetinaFace.from_preset("resnet50", load_weights=False)) == 27_293_600


LAYOUTS = {
    "mobilenet, three levels": SMALL,
    "wide pyramid, plain ReLU": {"backbone": "mobilenet_v1_025", "num_filters": 128},
    "resnet18, shared context": {"backbone": "resnet18", "num_filters": 8, "shared_context": True},
    "five levels": {**SMALL, "anchors": {f"P{i}": (2.0**i, 3.0**i, 4.0**i) for i in range(2, 7)}},
    "uneven anchors": {**SMALL, "anchors": {"P3": (8,), "P4": (32, 48, 64), "P5": (128, 256)}},
    "one level": {**SMALL, "anchors": {"P4": (32,)}},
    "five levels, shared": {**SMALL, "shared_context": True, "anchors": {f"P{i}": (2.0**i,) for i in range(2, 7)}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_every_layout_answers_for_each_anchor_and_folds_to_the_same(layout, size):
    keras.utils.set_random_seed(0)
    model = RetinaFace(**LAYOUTS[layout])
    randomize_normalisation(model)
    images = np.random.default_rng(0).integers(0, 255, (2, *size, 3), np.uint8)
    predictions = model(images)
    count = model.anchor_generator.count(*size)
    shapes = {name: tuple(value.shape) for name, value in predictions.items()}
    assert shapes == {"face": (2, count, 2), "box": (2, count, 4), "landmark": (2, count, 5, 2)}
    assert model.anchor_generator(*size).shape == (count, 4)
    folded = model.fold()(images)
    for name, value in predictions.items():
        scale = float(np.abs(value).max())
        np.testing.assert_allclose(folded[name] / scale, value / scale, atol=2e-4)


def test_a_folded_model_does_not_fold_again(bundled_model):
    with pytest.raises(ValueError, match="already folded"):
        bundled_model.fold().fold()


def test_one_step_changes_every_part():
    model = RetinaFace(**SMALL)
    before = [v.numpy() for v in model.trainable_variables]
    images = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    with tf.GradientTape() as tape:
        predictions = model(images, training=True)
        loss = tf.add_n([tf.reduce_sum(tf.square(value - 1)) for value in predictions.values()])
    variables = [v.value for v in model.trainable_variables]
    keras.optimizers.SGD(1e-3).apply(tape.gradient(loss, variables), model.trainable_variables)
    still = [v.path for v, old in zip(model.trainable_variables, before, strict=True) if (v.numpy() == old).all()]
    assert still == []


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_builds_and_runs(policy, bundled_model, sample_photo):
    model = RetinaFace.from_preset("mobilenet025_wider", dtype=policy)
    assert model.get_layer("body_stage1_0").compute_dtype == policy.removeprefix("mixed_")
    assert all(value.dtype == "float32" for value in model(np.zeros((1, 32, 32, 3), "uint8")).values())
    found, expected = model.detect(sample_photo), bundled_model.detect(sample_photo)
    assert len(found) == len(expected) == 1
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=2)


@pytest.mark.parametrize("num_filters", [0, 6, -4])
def test_impossible_filters_are_refused(num_filters):
    with pytest.raises(ValueError, match="`num_filters` must be a positive multiple of 4"):
        RetinaFace(num_filters=num_filters)


def plain_backbone(inputs, folded, dtype):
    """The smallest backbone there can be: five convolutions of stride 2."""
    x, maps = inputs, {}
    for level in range(1, 6):
        x = ConvBlock(8, 3, strides=2, negative_slope=0.1, name=f"body_down_{level}", folded=folded, dtype=dtype)(x)
        maps[f"C{level}"] = x
    return maps


@pytest.fixture
def plain(monkeypatch):
    """A model on a backbone that is an entry of the table and nothing else."""
    stages = tuple((f"down_{level}",) for level in range(1, 6))
    monkeypatch.setitem(BACKBONES, "plain", Backbone(plain_backbone, stages, last_float_layer="body_down_1"))
    return RetinaFace(backbone="plain", num_filters=8, anchors={"P3": [16], "P4": [32], "P5": [64]})


def test_a_new_backbone_is_one_entry_of_the_table(plain, tmp_path):
    assert plain.backbone_stages == {f"body_down_{level}": level for level in range(1, 6)}
    assert plain.last_float_layer == "body_down_1"
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    found = plain.detect(image, score_threshold=0.0)
    plain.save(tmp_path / "plain.keras")
    plain.save_to_preset(tmp_path / "plain")
    for path in (tmp_path / "plain.keras", tmp_path / "plain"):
        np.testing.assert_array_equal(
            RetinaFace.from_preset(path).detect(image, score_threshold=0.0).boxes, found.boxes
        )
    np.testing.assert_allclose(plain.fold()(image[None])["box"], plain(image[None])["box"], rtol=1e-4, atol=1e-3)


def test_a_new_backbone_learns_with_a_frozen_stage(plain):
    freeze(plain, body_stages=2)
    before = [layer.convolution.kernel.numpy() for layer in plain.layers if layer.name.startswith("body_down_")]
    plain.compile(keras.optimizers.SGD(0.1), loss=Objective())
    plain.train_on_batch(*small_batch())
    after = [layer.convolution.kernel.numpy() for layer in plain.layers if layer.name.startswith("body_down_")]
    assert [bool((a != b).any()) for a, b in zip(after, before, strict=True)] == [False, False, True, True, True]


def test_a_new_backbone_is_exported_in_eight_bits(plain, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = export_tflite(
        plain,
        tmp_path / "plain.tflite",
        ExportOptions(size=(64, 64), max_detections=5),
        quantize="int8",
        calibration=[photo] * 8,
    )
    assert len(retinaface_tf.load(path).detect(photo, score_threshold=0.5)) <= 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"pixel_mean": (1, 2)}, "`pixel_mean` must be 3 numbers from 0 to 255"),
        ({"pixel_mean": (float("nan"), 0, 0)}, "`pixel_mean` must be 3 numbers from 0 to 255"),
        ({"pixel_std": (0, 1, 1)}, "`pixel_std` must be 3 numbers from 1e-06"),
        ({"variances": (0.1, float("inf"))}, "`variances` must be 2 numbers"),
        ({"variances": "ab"}, "`variances` must be 2 numbers"),
        ({"num_filters": 10**9}, "`num_filters` must be a positive multiple of 4, at most 4096"),
    ],
)
def test_numbers_of_a_crafted_file_are_checked_before_the_network_is_built(given, expected):
    with pytest.raises(ValueError, match=expected):
        RetinaFace(**given)


def test_a_keras_file_whose_weights_are_not_finite_is_refused(tmp_path):
    model = RetinaFace(num_filters=8)
    model.variables[0].assign(model.variables[0] * float("nan"))
    model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"a\.keras: its weights are not finite, such as "):
        RetinaFace.from_preset(tmp_path / "a.keras")
