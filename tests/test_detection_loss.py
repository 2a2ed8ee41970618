"""The losses of a batch: against the recipe once more in NumPy, on batches of every kind, and over two replicas."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import numpy_recipe
import pytest
import tensorflow as tf

from retinaface_tf import RetinaFace
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.matcher import IGNORED
from retinaface_tf.training.losses import DetectionLoss
from retinaface_tf.training.objective import Objective, global_means
from retinaface_tf.training.optimizer import MomentumSGD

ANCHORS = np.array(AnchorGenerator({"P3": (8, 16), "P4": (24, 48)})(48, 48))
CHANGED = {
    "face": "focal",
    "box": "giou",
    "face_weight": 1.5,
    "box_weight": 0.25,
    "landmark_weight": 0.1,
    "negatives_per_positive": 3,
    "negatives_without_faces": 5,
    "landmark_by_face_size": True,
    "soft_scores": True,
    "variances": (0.3, 0.4),
}
UNWEIGHTED = {"box_weight": 1.0}


def batch(seed, images=4, number=4):
    """Predictions and faces: a face without landmarks, an occluded point, an image without faces, padding."""
    random = np.random.default_rng(seed)
    low = random.uniform(-3, 36, (4, number, 2))
    boxes = np.concatenate([low, low + random.uniform(6, 30, (4, number, 2))], axis=-1).astype("float32")
    landmarks = random.uniform(0, 48, (4, number, 5, 2)).astype("float32")
    visible = np.ones((4, number, 5), "int32")
    visible[0, 0] = -1
    visible[0, 1, 2:4] = 0
    visible[1, 0, 1] = -1
    boxes[1, 2:], boxes[2], visible[1, 2:], visible[2] = 0, 0, -1, -1
    landmarks[visible < 0] = -1
    predictions = {
        "face": random.normal(0, 2, (4, len(ANCHORS), 2)).astype("float32"),
        "box": random.normal(0, 2, (4, len(ANCHORS), 4)).astype("float32"),
        "landmark": random.normal(0, 3, (4, len(ANCHORS), 5, 2)).astype("float32"),
    }
    faces = {"boxes": boxes, "landmarks": landmarks, "visible": visible}
    return [{key: value[:images] for key, value in part.items()} for part in (predictions, faces)]


def run(predictions, faces, target=None, image_weights=None, **options):
    """Losses and the gradients of their sum."""
    predictions = {key: tf.constant(value) for key, value in predictions.items()}
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        targets = (target or AnchorTarget())(faces, ANCHORS)
        losses = global_means(DetectionLoss(**options)(targets, predictions, ANCHORS, image_weights))
        total = sum(losses.values())
    gradients = tape.gradient(total, predictions)
    return {k: float(v) for k, v in losses.items()}, {k: tf.convert_to_tensor(v).numpy() for k, v in gradients.items()}


def agree(ours, theirs):
    for values, wanted in zip(ours, theirs, strict=True):
        for key in wanted:
            np.testing.assert_allclose(values[key], wanted[key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [7, 3, 1000])
def test_the_published_loss_and_its_gradient(seed, ratio):
    predictions, faces = batch(seed)
    ours = run(predictions, faces, negatives_per_positive=ratio, **UNWEIGHTED)
    agree(ours, numpy_recipe.bb6_losses(predictions, faces, ANCHORS, ratio))


def test_the_published_weights():
    predictions, faces = batch(0)
    losses, _ = numpy_recipe.bb6_losses(predictions, faces, ANCHORS)
    agree(run(predictions, faces)[:1], [{**losses, "box": 2 * losses["box"]}])


@pytest.mark.parametrize("ratio", [1, 7])
def test_ties_in_mining(ratio):
    predictions, faces = batch(5)
    predictions["face"][:] = np.round(predictions["face"] / 3)  # a handful of different losses, each many times
    ours = run(predictions, faces, negatives_per_positive=ratio, **UNWEIGHTED)
    agree(ours, numpy_recipe.bb6_losses(predictions, faces, ANCHORS, ratio))
    predictions["face"][:] = 0
    ours = run(predictions, faces, negatives_per_positive=ratio, **UNWEIGHTED)
    agree(ours, numpy_recipe.bb6_losses(predictions, faces, ANCHORS, ratio))


def test_the_papers_matching_and_ratio():
    predictions, faces = batch(6)
    faces["boxes"][0, :2] = ANCHORS[[40, 80]] + 0.5
    ours = run(
        predictions, faces, AnchorTarget(positive_iou=0.5, negative_iou=0.3, forced_iou=None),
        negatives_per_positive=3, **UNWEIGHTED,
    )  # fmt: skip
    match = lambda boxes, anchors: numpy_recipe.match_by_iou(boxes, anchors, 0.5, 0.3, None)  # noqa: E731
    agree(ours, numpy_recipe.bb6_losses(predictions, faces, ANCHORS, 3, match))


FACE_AND_BOX = [
    (f, b) for f in ("mined_cross_entropy", "focal", "quality_focal") for b in ("smooth_l1", "diou", "giou")
]


@pytest.mark.parametrize(("face", "box"), FACE_AND_BOX)
@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("by_size", [False, True])
def test_without_faces_all_is_finite_and_boxes_have_no_gradient(face, box, number, by_size):
    predictions, _ = batch(0, images=2)
    faces = {
        "boxes": np.zeros((2, number, 4), "float32"),
        "landmarks": np.full((2, number, 5, 2), -1, "float32"),
        "visible": np.full((2, number, 5), -1, "int32"),
    }
    losses, gradients = run(predictions, faces, face=face, box=box, landmark_by_face_size=by_size)
    assert losses["box"] == losses["landmark"] == 0
    assert np.isfinite(losses["face"])
    assert not gradients["box"].any()
    assert not gradients["landmark"].any()
    assert np.isfinite(gradients["face"]).all()


@pytest.mark.parametrize(("face", "box"), FACE_AND_BOX)
def test_without_landmarks_the_landmark_loss_is_0(face, box):
    predictions, faces = batch(0)
    faces["visible"][:] = -1
    losses, gradients = run(predictions, faces, face=face, box=box)
    assert losses["landmark"] == 0
    assert not gradients["landmark"].any()
    assert all(np.isfinite(losses[key]) for key in losses)
    assert all(np.isfinite(value).all() for value in gradients.values())
    assert losses["box"] > 0


@pytest.mark.parametrize(("face", "box"), FACE_AND_BOX)
def test_an_image_of_weight_0_is_left_out(face, box):
    predictions, faces = batch(1)
    options = {"face": face, "box": box, "negatives_without_faces": 4}
    kept = [0, 2]
    weighted = run(predictions, faces, image_weights=tf.constant([1.0, 0, 1, 0]), **options)
    alone = run(
        {k: v[kept] for k, v in predictions.items()}, {k: v[kept] for k, v in faces.items()}, **options
    )  # fmt: skip
    agree(weighted[:1], alone[:1])
    for key, gradient in weighted[1].items():
        np.testing.assert_allclose(gradient[kept], alone[1][key], rtol=1e-4, atol=1e-6)
        assert not gradient[[1, 3]].any()


def test_images_of_half_weight_count_half():
    predictions, faces = batch(1)
    half = run(predictions, faces, image_weights=tf.fill([4], 0.5), negatives_without_faces=4)
    whole = run(predictions, faces, negatives_without_faces=4)
    agree(half[:1], [{key: value / 2 for key, value in whole[0].items()}])


def test_negatives_without_faces():
    predictions, faces = batch(2, images=1)
    faces["boxes"][:], faces["visible"][:] = 0, -1
    hardness = np.sort(numpy_recipe.cross_entropy(predictions["face"][0].astype(float), 0))[::-1]
    for wanted in (0, 1, 10, 10_000):
        losses, _ = run(predictions, faces, negatives_without_faces=wanted)
        np.testing.assert_allclose(losses["face"], hardness[:wanted].sum(), rtol=1e-5)


def test_landmarks_in_parts_of_the_faces_size():
    """Offsets of an anchor of another size than the face are measured as from an anchor of the face's own size."""
    predictions, faces = batch(3, images=1)
    faces["visible"][:] = 1
    match = numpy_recipe.match_by_iou(faces["boxes"][0], ANCHORS)
    total, positives = 0, np.flatnonzero(match >= 0)
    for a in positives:
        _, points = numpy_recipe.encode(faces["boxes"][0, match[a]], faces["landmarks"][0, match[a]], ANCHORS[a])
        sides = faces["boxes"][0, match[a], 2:] - faces["boxes"][0, match[a], :2]
        size = np.sqrt(sides.prod()) / (ANCHORS[a, 2] - ANCHORS[a, 0])
        total += numpy_recipe.smooth_l1((predictions["landmark"][0, a] - points) / size).sum()
    losses, _ = run(predictions, faces, landmark_by_face_size=True)
    np.testing.assert_allclose(losses["landmark"], total / len(positives), rtol=1e-4)


def test_hidden_landmarks_weigh_what_they_are_told():
    predictions, faces = batch(3, images=1)
    faces["visible"][:] = 0
    hidden, _ = run(predictions, faces, AnchorTarget(occluded_weight=0.25))
    shown, _ = run(predictions, faces)
    np.testing.assert_allclose(hidden["landmark"], shown["landmark"] / 4, rtol=1e-5)
    assert run(predictions, faces, AnchorTarget(occluded_weight=0.0))[0]["landmark"] == 0


@pytest.mark.parametrize("face", ["mined_cross_entropy", "focal", "quality_focal"])
def test_nothing_is_learned_in_an_ignore_region(face):
    """There the hardest negatives of all cost nothing and take no other negative's place."""
    predictions, faces = batch(0)
    faces["ignored"] = np.zeros((4, 4), "int32")
    faces["ignored"][:, -1] = 1
    faces["boxes"][:, -1] = [10, 10, 40, 40]
    targets = AnchorTarget()(faces, ANCHORS)
    ignored = targets.match.numpy() == IGNORED
    assert 10 < ignored.sum() < ignored.size / 2
    losses, gradients = run(predictions, faces, face=face)
    predictions["face"][ignored] = [-50, 50]  # surely a face, says the network
    again, hard = run(predictions, faces, face=face)
    np.testing.assert_allclose(again["face"], losses["face"], rtol=1e-6)
    for values in (gradients, hard):
        assert not any(values[kind][ignored].any() for kind in ("face", "box", "landmark"))
    assert run(predictions, {**faces, "ignored": 0 * faces["ignored"]}, face=face)[0]["face"] > 2 * losses["face"]


def test_config():
    loss = DetectionLoss(**CHANGED)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is DetectionLoss
    for name, value in CHANGED.items():
        assert getattr(again, name) == getattr(loss, name) == value != getattr(DetectionLoss(), name), name


@pytest.mark.parametrize("options", [{"face": "softmax"}, {"box": "l1"}])
def test_unknown_losses_list_the_known_ones(options):
    with pytest.raises(ValueError, match=r"must be one of .*Received"):
        DetectionLoss(**options)


REPLICAS = """
import json, sys
import numpy as np
import tensorflow as tf
import keras
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_detection_loss as t
both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = t.fit_once(tf.distribute.get_strategy(), run_eagerly=True)  # without a graph: half the time
print(json.dumps([one, t.fit_once(both)]))
"""


def fit_once(strategy, **options):
    """Logged losses and a sum over the changed weights of a step on four images."""
    from retinaface_tf.training.batch_norm import freeze

    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = RetinaFace(num_filters=8, anchors={"P3": (8, 16), "P4": (24, 48)})
        freeze(model, batch_norm=True)  # the statistics of half a batch would be others
        model.compile(MomentumSGD(1.0, global_clipnorm=0.1), loss=Objective(), **options)
    before = model.get_weights()
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3)).astype("uint8")
    faces = {**batch(0)[1], "image_weight": np.array([1, 1, 1, 0], "float32")}
    data = tf.data.Dataset.from_tensor_slices((images, faces)).batch(4)
    logs = model.fit(data, verbose=0, shuffle=False).history
    change = np.concatenate([np.ravel(a - b) for a, b in zip(model.get_weights(), before, strict=True)])
    sizes = np.split(change, range(0, len(change), 1000))
    return {**{key: value[0] for key, value in logs.items()}, "change": [float(np.sum(part)) for part in sizes]}


@pytest.mark.slow
def test_two_replicas_are_one():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    one, two = json.loads(result.stdout.splitlines()[-1])
    assert one["skipped"] == 1
    assert np.abs(one["change"]).max() > 1e-4
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, rtol=1e-3, atol=1e-6, err_msg=key)
