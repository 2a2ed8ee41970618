"""The crops and targets of `datasets/small_faces`."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.overlap import pairwise_iou

FOLDER = Path(__file__).parents[1] / "datasets/small_faces"


def program(name):
    spec = importlib.util.spec_from_file_location(f"small_faces_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def train():
    return program("train")


@pytest.fixture(scope="module")
def narrow():
    return program("narrow")


def photo(**changes):
    values = {
        "image": np.zeros((200, 300, 3), np.uint8),
        "boxes": np.array([[100, 60, 140, 100]], np.float32),
        "landmarks": np.array([[[110, 75], [130, 75], [120, 85], [112, 92], [128, 92]]], np.float32),
        "scores": np.array([0.8], np.float32),
        "regions": np.zeros((0, 4), np.float32),
    }
    return SimpleNamespace(**values | changes)


def test_crops_keep_faces_and_landmarks_where_the_pixels_are(train):
    image = np.zeros((200, 300, 3), np.uint8)
    image[60:100, 100:120], image[60:100, 120:140] = (255, 0, 0), (0, 255, 0)  # the left and right half of the face
    seen = 0
    for seed in range(200):
        crop = train.crop(np.random.default_rng(seed), photo(image=image), 320)
        assert crop.image.shape == (320, 320, 3)
        for box, points in zip(crop.boxes, crop.landmarks, strict=True):
            assert box.min() >= 0 and box.max() <= 320
            if box[2] - box[0] < 16:
                continue
            inside = crop.image[int(box[1]) + 2 : int(box[3]) - 2, int(box[0]) + 2 : int(box[2]) - 2]
            assert inside[..., 2].max() < 60 < inside[..., :2].max()  # no background in the box
            left, right = points[0], points[1]
            assert left[0] < right[0]  # the left eye is the left one of a mirrored face, too
            seen += 1
    assert seen > 80


def test_targets_of_faces_regions_and_all_else(train):
    anchors = np.array([[98, 58, 142, 102], [0, 0, 16, 16], [200, 200, 232, 232], [112, 72, 128, 88]], np.float32)
    region = np.array([[204, 204, 228, 228]], np.float32)
    label, score, box, landmarks, known = train.targets(photo(regions=region), anchors)
    assert label.tolist() == [1, 0, -1, 0]  # a face, background, an ignore region, too small for the face
    np.testing.assert_allclose(score, [0.8, 0, 0, 0])
    np.testing.assert_allclose(box[0], [0, 0, np.log(40 / 44) / 0.2, np.log(40 / 44) / 0.2], rtol=1e-5)
    np.testing.assert_allclose(landmarks[0, 0], [-10 / 4.4, -5 / 4.4], rtol=1e-5)
    assert known.tolist() == [[1] * 5] + [[0] * 5] * 3


def test_the_best_anchor_of_a_small_face_is_forced_and_that_of_a_tiny_one_is_left_alone(train):
    anchors = np.array([[0, 0, 16, 16], [100, 100, 116, 116]], np.float32)
    boxes = np.array([[4, 4, 12, 12], [105, 105, 110, 110]], np.float32)  # IoU .25 and .10
    label = train.targets(photo(boxes=boxes, landmarks=np.full((2, 5, 2), np.nan), scores=np.ones(2)), anchors)[0]
    assert label.tolist() == [1, -1]


def test_channel_sizes_are_those_of_each_output_channel(train):
    kernel = np.ones((3, 3, 4, 2), np.float32) * [1, 10]
    np.testing.assert_allclose(train.channel_sizes(kernel, "a/convolution/kernel").ravel(), [1.1, 10], rtol=1e-6)
    depthwise = np.ones((3, 3, 2, 1), np.float32) * np.array([1, 10])[:, None]
    np.testing.assert_allclose(train.channel_sizes(depthwise, "a_depthwise/kernel").ravel(), [1.1, 10], rtol=1e-6)


def test_atss_matches_anchors_whose_center_is_in_the_face(train):
    sizes = AnchorGenerator({"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)})
    anchors = np.asarray(sizes(train.SIDE, train.SIDE), np.float32)
    label = train.targets(photo(), anchors, "atss")[0]
    assert set(label) == {0, 1}  # no anchor is neither
    chosen = anchors[label == 1]
    centers = (chosen[:, :2] + chosen[:, 2:]) / 2
    assert len(chosen) > 1 and (centers > [100, 60]).all() and (centers < [140, 100]).all()
    assert (label != train.targets(photo(), anchors)[0]).any()


@pytest.mark.slow
def test_changes_of_the_recipe_change_the_losses_that_they_name(train, monkeypatch):
    monkeypatch.setattr(train, "SIDE", 64)
    trainer = train.Trainer(10)
    small = photo(boxes=np.array([[20, 20, 44, 44]], np.float32), landmarks=np.full((1, 5, 2), np.nan))
    rows = train.targets(small, trainer.anchors)
    batch = [each[None] for each in (np.zeros((64, 64, 3), np.uint8), *rows)]
    trainer.train = trainer._train  # without tracing
    names = [None, "smooth-l1", "diou", "mined", "focal", "quality-focal", "soft-focal", "labels-alone"]
    found = {}
    for trainer.change in names:
        trainer.assign([0 * move for move in trainer.average])
        found[trainer.change] = trainer.fit(batch)
    assert np.isfinite(list(found.values())).all()
    scores, boxes, offsets, _ = np.transpose(list(found.values())).round(6)
    assert len(set(scores[[0, *range(3, len(names))]])) == len(names) - 2  # each face loss is another one
    assert boxes[names.index("smooth-l1")] == offsets[names.index("diou")] == 0 < boxes[0]


def test_crops_show_the_face_at_a_drawn_size(train):
    image = np.full((200, 300, 3), 90, np.uint8)
    image[60:100, 100:140] = (255, 0, 0)
    sizes = []
    for seed in range(100):
        crop = train.crop(np.random.default_rng(seed), photo(image=image), 256, faces=(10.0, 40.0)).image
        assert crop.shape == (256, 256, 3)
        red = (crop[..., 0] > 200) & (crop[..., 1] < 60)
        if red.any() and not (red[[0, -1]].any() or red[:, [0, -1]].any()):
            sizes.append(np.sqrt(red.sum()))
    assert len(sizes) > 50
    assert np.mean((np.array(sizes) > 7) & (np.array(sizes) < 42)) > 0.6


def test_a_network_with_idle_channels_is_narrowed_without_a_loss(narrow):
    """Half of the channels behind the backbone are 0: without them, the network predicts the same."""
    from retinaface_tf import RetinaFace

    random = np.random.default_rng(0)
    whole, thin = (RetinaFace(num_filters=filters, folded=True) for filters in (16, 8))
    added = {"lateral_P4": "lateral_P5", "merge_P4": "lateral_P3"}  # maps that are added have the same idle channels
    idle = {}
    for weight in whole.variables:
        values = random.normal(0, 0.1, weight.shape).astype(np.float32)
        if weight.path.startswith(("pyramid", "context")):
            layer, _, _ = weight.path.partition("/convolution")
            name = layer.rpartition("/")[2]
            layer = layer.replace(name, added.get(name, name))
            values[..., idle.setdefault(layer, random.permutation(values.shape[-1])[: values.shape[-1] // 2])] = 0
        weight.assign(values)
    maps = {
        level: np.abs(random.normal(0, 1, (4, side, side, channels))).astype(np.float32)
        for level, side, channels in (("P3", 32, 64), ("P4", 16, 128), ("P5", 8, 256))
    }
    narrow.Narrower(whole, thin).fill(maps)
    wide, small = (predictions(model, maps) for model in (whole, thin))
    for level in maps:
        assert np.abs(wide[level]).max() > 0.1
        np.testing.assert_allclose(small[level], wide[level], atol=0.01 * np.abs(wide[level]).max())


def predictions(model, maps):
    """Raw predictions of the part behind the backbone: dict level -> float32 `[N, A, 16]`."""
    pyramid = model.get_layer("pyramid")({f"C{level[1]}": x for level, x in maps.items()})
    return {
        level: np.asarray(model.get_layer(f"heads_{level}")(model.get_layer(f"context_{level}")(x)))
        for level, x in pyramid.items()
    }


@pytest.mark.slow
def test_the_narrow_network_is_trained_resumed_and_written(narrow, tmp_path):
    from retinaface_tf import RetinaFace, presets

    images = tmp_path / "data/web_faces/images"
    images.mkdir(parents=True)
    names = [f"photo_{number}.jpg" for number in range(4)]
    for name in names:
        shutil.copy(presets.FOLDER.parent / "samples/astronaut.jpg", images / name)
    command = [sys.executable, FOLDER / "narrow.py", "--data", tmp_path / "data", "--output", tmp_path / "run"]
    for steps in (2, 3):
        subprocess.run([*command, "--steps", str(steps)], check=True, timeout=600)
        with np.load(tmp_path / "run/state.npz") as state:
            assert state["step"] == steps
    with np.load(tmp_path / "run/faces.npz") as found:  # photos that are kept apart are not used
        assert sorted(found) == [f"web_faces/{name}" for name in names if not narrow.kept_apart(name)]
    model, start = RetinaFace.from_preset(tmp_path / "run/model.keras"), RetinaFace.from_preset(narrow.START)
    assert model.num_filters == start.num_filters // 2
    body = {weight.path: weight.numpy() for weight in start.variables if weight.path.startswith("body_")}
    assert all(np.array_equal(weight, body[weight.path]) for weight in model.variables if weight.path in body)
    photo = presets.FOLDER.parent / "samples/astronaut.jpg"
    boxes = [each.detect(photo).boxes[:1] for each in (model, start)]
    assert pairwise_iou(*boxes) > 0.8  # least squares alone find the face
