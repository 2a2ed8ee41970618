"""Every tensor of a checkpoint lands where it belongs; a file that does not fit is refused with all that is wrong."""

import hashlib
import json

import numpy as np
import pytest
from torch_files import write_legacy, write_zip

from retinaface_tf import RetinaFace
from retinaface_tf.cli.convert_weights import convert
from retinaface_tf.cli.main import main
from retinaface_tf.network.conv_block import zero_kernels
from retinaface_tf.presets.torch_checkpoint import CheckpointError, _wanted

MOBILENET_CHANNELS = {1: (8, 16, 32, 32, 64, 64), 2: (128,) * 6, 3: (256, 256)}


def conv_bn(name_conv, name_bn, shape, random):
    yield f"{name_conv}.weight", random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    for suffix in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name_bn}.{suffix}", random.uniform(0.5, 1.5, shape[0])
    yield f"{name_bn}.num_batches_tracked", np.array(1)


def mobilenet_body(random, prefix="body."):
    before = 8
    yield from conv_bn(f"{prefix}stage1.0.0", f"{prefix}stage1.0.1", (8, 3, 3, 3), random)
    for stage, channels in MOBILENET_CHANNELS.items():
        for i, after in enumerate(channels):
            if (stage, i) == (1, 0):
                continue
            name = f"{prefix}stage{stage}.{i}"
            yield from conv_bn(f"{name}.0", f"{name}.1", (before, 1, 3, 3), random)
            yield from conv_bn(f"{name}.3", f"{name}.4", (after, before, 1, 1), random)
            before = after


def resnet50_body(random):
    yield from conv_bn("body.conv1", "body.bn1", (64, 3, 7, 7), random)
    before = 64
    for layer, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for i in range(blocks):
            name = f"body.layer{layer}.{i}"
            yield from conv_bn(f"{name}.conv1", f"{name}.bn1", (width, before, 1, 1), random)
            yield from conv_bn(f"{name}.conv2", f"{name}.bn2", (width, width, 3, 3), random)
            yield from conv_bn(f"{name}.conv3", f"{name}.bn3", (4 * width, width, 1, 1), random)
            if i == 0:
                yield from conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", (4 * width, before, 1, 1), random)
            before = 4 * width


def rest(random, body_channels, channels):
    for i, before in enumerate(body_channels, start=1):
        yield from conv_bn(f"fpn.output{i}.0", f"fpn.output{i}.1", (channels, before, 1, 1), random)
    for i in (1, 2):
        yield from conv_bn(f"fpn.merge{i}.0", f"fpn.merge{i}.1", (channels, channels, 3, 3), random)
    half, quarter = channels // 2, channels // 4
    for i in (1, 2, 3):
        for name, shape in {
            "conv3X3": (half, channels, 3, 3),
            "conv5X5_1": (quarter, channels, 3, 3),
            "conv5X5_2": (quarter, quarter, 3, 3),
            "conv7X7_2": (quarter, quarter, 3, 3),
            "conv7x7_3": (quarter, quarter, 3, 3),
        }.items():
            yield from conv_bn(f"ssh{i}.{name}.0", f"ssh{i}.{name}.1", shape, random)
    for i in range(3):
        for head, values in (("ClassHead", 4), ("BboxHead", 8), ("LandmarkHead", 20)):
            yield f"{head}.{i}.conv1x1.weight", random.normal(size=(values, channels, 1, 1)) / 10
            yield f"{head}.{i}.conv1x1.bias", random.normal(size=values)


def checkpoint(backbone="mobilenet"):
    random = np.random.default_rng(0)
    body, channels = (
        (mobilenet_body(random), ((64, 128, 256), 64))
        if backbone == "mobilenet"
        else (resnet50_body(random), ((512, 1024, 2048), 256))
    )
    items = [*body, *rest(random, *channels)]
    return {name: array if array.ndim == 0 else array.astype("float32") for name, array in items}


def learned(tensors):
    return sum(a.size for name, a in tensors.items() if not name.endswith(("mean", "var", "tracked")))


def test_mobilenet_checkpoint_lands_tensor_by_tensor(tmp_path):
    tensors = checkpoint()
    assert learned(tensors) == 426_608
    write_legacy(tmp_path / "m.pth", {f"module.{name}": array for name, array in tensors.items()})
    model, whole = convert(str(tmp_path / "m.pth"), "mobilenet025")
    assert whole
    stem = model.get_layer("body_stage1_0")
    np.testing.assert_array_equal(
        stem.convolution.kernel, tensors["body.stage1.0.0.weight"].transpose(2, 3, 1, 0)[:, :, ::-1]
    )
    depthwise = model.get_layer("body_stage2_3_depthwise")
    np.testing.assert_array_equal(
        depthwise.convolution.kernel.numpy()[..., 0], tensors["body.stage2.3.0.weight"][:, 0].transpose(1, 2, 0)
    )
    np.testing.assert_array_equal(depthwise.normalisation.moving_variance, tensors["body.stage2.3.1.running_var"])
    context = model.get_layer("context_P4")
    np.testing.assert_array_equal(context.inner_7.normalisation.beta, tensors["ssh2.conv7X7_2.1.bias"])
    np.testing.assert_array_equal(
        model.get_layer("pyramid").merges[0].convolution.kernel, tensors["fpn.merge1.0.weight"].transpose(2, 3, 1, 0)
    )
    head = model.get_layer("landmark_head_P5").convolution
    np.testing.assert_array_equal(head.kernel.numpy()[0, 0], tensors["LandmarkHead.2.conv1x1.weight"][:, :, 0, 0].T)


def test_resnet50_checkpoint_fits_whole(tmp_path):
    tensors = checkpoint("resnet")
    assert learned(tensors) == 27_293_600
    write_zip(tmp_path / "r.pth", tensors)
    model, whole = convert(str(tmp_path / "r.pth"), "resnet50")
    assert whole
    block = model.get_layer("body_layer3_0_downsample")
    np.testing.assert_array_equal(
        block.convolution.kernel.numpy()[0, 0], tensors["body.layer3.0.downsample.0.weight"][:, :, 0, 0].T
    )


def test_imagenet_classifier_fills_the_body_alone(tmp_path):
    random = np.random.default_rng(0)
    tensors = dict(mobilenet_body(random, "module."))
    tensors |= {"module.fc.weight": random.normal(size=(1000, 256)), "module.fc.bias": random.normal(size=1000)}
    tensors = {name: array if array.ndim == 0 else array.astype("float32") for name, array in tensors.items()}
    write_legacy(tmp_path / "m.pth.tar", {"epoch": 1, "state_dict": tensors})
    model, whole = convert(str(tmp_path / "m.pth.tar"), "mobilenet025")
    assert not whole
    np.testing.assert_array_equal(
        model.get_layer("body_stage3_1_pointwise").normalisation.gamma, tensors["module.stage3.1.4.weight"]
    )
    again, _ = convert(str(tmp_path / "m.pth.tar"), "mobilenet025")
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # what is fresh is fresh in the same way


def test_all_that_does_not_fit_is_listed_and_nothing_is_assigned():
    tensors = checkpoint()
    del tensors["ssh1.conv3X3.0.weight"]
    tensors["surplus.weight"] = np.zeros(3, "float32")
    tensors["fpn.output1.0.weight"] = tensors["fpn.output1.0.weight"][:, :-1]
    tensors["fpn.merge1.0.weight"] = np.zeros(5, "float32")
    tensors["BboxHead.0.conv1x1.bias"] = np.full(8, np.nan, "float32")
    model = RetinaFace()
    before = model.get_weights()
    with pytest.raises(CheckpointError) as caught:
        model.assign_torch_weights(tensors)
    message = str(caught.value)
    assert "1 missing (ssh1.conv3X3.0.weight)" in message
    assert "1 left over (surplus.weight)" in message
    assert "2 misshapen (fpn.merge1.0.weight [5]" in message
    assert "fpn.output1.0.weight [64, 63, 1, 1]" in message
    assert "1 not finite (BboxHead.0.conv1x1.bias)" in message
    assert "\n" not in message
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_for_another_architecture_is_refused_briefly(tmp_path):
    write_zip(tmp_path / "m.pth", checkpoint())
    with pytest.raises(CheckpointError, match=r"\d+ missing .*\d+ left over") as caught:
        convert(str(tmp_path / "m.pth"), "resnet50")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("photo", range(3))
@pytest.mark.parametrize("name", ["mobilenet025_a", "mobilenet025_b"])
@pytest.mark.parametrize("folded", [False, True])
def test_outputs_equal_pytorchs(name, photo, folded, development_data):
    """Three photos, two public checkpoints, the 2,000 surest anchors of each as PyTorch computed them."""
    from retinaface_tf.image.loading import load_image

    raw = np.load(development_data / "reference_weights" / "raw_outputs.npz")
    file = sorted({key.split("/")[1] for key in raw})[photo]
    expected = {what: raw[f"{name}/{file}/{what}"] for what in ("anchor_index", "scores", "boxes", "landmarks")}
    model, _ = convert(str(development_data / "reference_weights" / f"{name}.pth"), "mobilenet025")
    image = load_image(development_data / "wider_val_samples" / file)
    predictions = (model.fold() if folded else model)(image[None])
    index = expected["anchor_index"]
    logits = predictions["face"].numpy()[0, index].astype(float)
    scores = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)
    np.testing.assert_allclose(predictions["box"].numpy()[0, index], expected["boxes"], atol=1e-3)
    landmarks = predictions["landmark"].numpy()[0, index].reshape(-1, 10)
    np.testing.assert_allclose(landmarks, expected["landmarks"], atol=1e-3)


def test_imagenet_body_of_the_development_data(development_data):
    model, whole = convert(
        str(development_data / "reference_weights" / "mobilenet025_imagenet.pth.tar"), "mobilenet025"
    )
    assert not whole
    assert np.abs(model.get_layer("body_stage3_1_pointwise").normalisation.moving_mean).max() > 0


@pytest.mark.parametrize(("preset", "backbone"), [("resnet18_p6", "resnet18"), ("paper_resnet152", "resnet50")])
def test_a_classifier_fills_the_body_of_every_recipe(preset, backbone):
    """Also where levels and context modules are not those of the public detectors; of a smaller backbone."""
    with zero_kernels():
        model = RetinaFace.from_preset(preset, load_weights=False, backbone=backbone)
    shapes = {variable.path: tuple(variable.shape) for variable in model.variables}
    random = np.random.default_rng(0)
    tensors = {}
    for name, path, _ in _wanted(shapes, {}):
        if name.startswith("body."):
            shape = shapes[path]
            tensors[name] = random.random(shape if len(shape) == 1 else (shape[3], shape[2], *shape[:2]), "float32")
    tensors["fc.weight"] = np.zeros((3, 3), "float32")
    assert not model.assign_torch_weights({name.removeprefix("body."): value for name, value in tensors.items()})
    norm = model.get_layer("body_stem").normalisation
    np.testing.assert_array_equal(norm.moving_variance.numpy(), tensors["body.bn1.running_var"])


@pytest.mark.slow
def test_a_trained_file_becomes_a_preset_of_its_own(tmp_path, capsys):
    architecture = {"num_filters": 8, "anchors": {"P3": [8], "P4": [16], "P5": [32]}}
    card = {"architecture": architecture}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "preset.json").write_text(json.dumps(card))
    model = RetinaFace(**architecture)
    model.save(tmp_path / "trained.keras")
    words = ["convert", "weights", str(tmp_path / "trained.keras"), "--output", str(tmp_path / "mine" / "weights.npz")]
    assert main([*words, "--preset", "mobilenet025"]) == 2
    assert "differs in anchors, num_filters from the preset mobilenet025" in capsys.readouterr().err
    assert main([*words, "--preset", str(tmp_path / "mine")]) == 0
    digest = hashlib.sha256((tmp_path / "mine" / "weights.npz").read_bytes()).hexdigest()
    card["weights"] = {"file": "weights.npz", "sha256": digest}
    (tmp_path / "mine" / "preset.json").write_text(json.dumps(card))
    again = RetinaFace.from_preset(tmp_path / "mine")
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
