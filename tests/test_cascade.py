"""Cascades: the second heads start from the boxes of the first, in targets, losses and detections."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from retinaface_tf import RetinaFace
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.geometry.box_coder import encode_boxes
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.image.loading import load_image
from retinaface_tf.training.build import warm_start
from retinaface_tf.training.losses import DetectionLoss
from retinaface_tf.training.objective import Objective

SMALL = {"num_filters": 8, "anchors": {"P3": (8,), "P4": (16,), "P5": (32,)}}
LOG_2 = np.log(2.0)


def test_both_steps_are_composed_as_by_hand():
    """An anchor of 10 by 10 around (10, 10), variances 0.1 and 0.2.

    First: half an anchor side to the right, twice as wide: center (15, 10), 20 by 10. Then, in units of that box: a
    tenth of 20 to the right, a tenth of 10 down, half as wide, twice as high: center (17, 11), 10 by 20. The nose lies
    a quarter of a side right and below of the first box' center: (20, 12.5).
    """
    predictions = {
        "face": np.array([[[0.0, 3.0]]], "float32"),
        "first_box": np.array([[[5.0, 0.0, LOG_2 / 0.2, 0.0]]], "float32"),
        "box": np.array([[[1.0, 1.0, -LOG_2 / 0.2, LOG_2 / 0.2]]], "float32"),
        "landmark": np.array([[[[0, 0], [0, 0], [2.5, 2.5], [0, 0], [0, 0]]]], "float32"),
    }
    anchors = np.array([[5, 5, 15, 15]], "float32")
    found = DetectionDecoder()(predictions, anchors, np.array([[0, 0, 50, 50]], "float32"))
    np.testing.assert_allclose(found["boxes"][0, 0], [12, 1, 22, 21], atol=1e-4)
    np.testing.assert_allclose(found["landmarks"][0, 0, :3], [[15, 10], [15, 10], [20, 12.5]], atol=1e-4)
    del predictions["first_box"]
    found = DetectionDecoder()(predictions, anchors, np.array([[0, 0, 50, 50]], "float32"))
    np.testing.assert_allclose(found["boxes"][0, 0], [8.5, 1, 13.5, 21], atol=1e-4)


def batch(*boxes):
    """One image of 48 by 48 pixels with such faces."""
    count = len(boxes)
    faces = {
        "boxes": np.array([boxes], "float32"),
        "landmarks": np.full((1, count, 5, 2), 20, "float32"),
        "visible": np.ones((1, count, 5), "int32"),
    }
    return np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype("uint8"), faces


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return RetinaFace(**SMALL, cascade=True)


def compiled(model, **options):
    loss = DetectionLoss(**options)
    targets = AnchorTarget(positive_iou=0.5, negative_iou=0.4, forced_iou=None)
    first = AnchorTarget(positive_iou=0.7, negative_iou=0.3, forced_iou=None)
    objective = Objective(loss, targets, first_target=first)
    model.compile(keras.optimizers.SGD(0.01), loss=objective, run_eagerly=True)


def answers(model, faces, first_boxes):
    """Predictions of a batch whose first heads answer with such boxes, the second with zeros."""
    count = model.anchor_generator.count(48, 48)
    anchors = model.anchor_generator(48, 48)
    shapes = {"face": (2,), "box": (4,), "landmark": (5, 2), "first_face": (2,)}
    zeros = {name: tf.zeros((len(faces["boxes"]), count, *shape)) for name, shape in shapes.items()}
    return {**zeros, "first_box": encode_boxes(first_boxes(anchors), anchors, (0.1, 0.2))}


def test_the_second_heads_learn_from_the_first_ones_boxes(model):
    """Where the first heads have brought boxes onto the face, nothing is left to regress; elsewhere none is learned."""
    compiled(model)
    images, faces = batch([1, 1, 33, 33])
    face = tf.constant(faces["boxes"][:, 0])

    def losses(first_boxes):
        predictions = answers(model, faces, first_boxes)
        model.reset_metrics()
        total = model.compute_loss(images, faces, predictions)
        each = {m.name: float(m.result()) for m in model.metrics if m.name in model.loss_names}
        np.testing.assert_allclose(total, sum(each.values()), rtol=1e-5)
        return each

    on_the_face = losses(lambda anchors: tf.broadcast_to(face, (1, len(anchors), 4)))
    assert list(on_the_face) == ["first_face", "first_box", "face", "box", "landmark"]
    assert on_the_face["box"] == pytest.approx(0, abs=1e-4)
    # A pixel more on every side: 34 px, overlapping by 0.89. log(32 / 34) / 0.2 = -0.303, smooth L1 of two: 0.092.
    near = losses(lambda anchors: tf.broadcast_to(face + tf.constant([-1.0, -1, 1, 1]), (1, len(anchors), 4)))
    assert near["box"] == pytest.approx(2 * 2 * 0.5 * (np.log(32 / 34) / 0.2) ** 2, rel=1e-3)
    away = losses(lambda anchors: tf.broadcast_to(face + 100, (1, len(anchors), 4)))
    assert away["box"] == away["face"] == away["landmark"] == 0  # no anchor, nothing to learn
    # Of the anchors one overlaps the face by over 0.7: it is a face, and seven others are none, at log(2) each.
    assert near["first_face"] == away["first_face"] == pytest.approx(8 * LOG_2, rel=1e-5)


def test_no_gradient_goes_from_the_second_heads_into_the_first_ones_boxes(model):
    compiled(model, face="focal", box="diou")
    images, faces = batch([0, 0, 32, 32])
    away = {name: value + 100 if name == "boxes" else value for name, value in faces.items()}
    predictions = model(images)
    # No anchor is near this face, so that the first heads learn no box; their boxes are, so that the second do.
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        boxes = encode_boxes(away["boxes"], model.anchor_generator(48, 48), (0.1, 0.2))
        total = model.compute_loss(images, away, {**predictions, "first_box": boxes + 0.1 * predictions["first_box"]})
    gradient = tape.gradient(total, predictions)
    assert np.abs(gradient["box"]).max() > 0
    assert gradient["first_box"] is None or not np.abs(gradient["first_box"]).any()


def test_every_part_learns(model):
    compiled(model, face="focal")
    before = {v.path: v.numpy() for v in model.trainable_variables}
    for _ in range(2):
        model.train_step(batch([0, 0, 8, 8], [16, 16, 32, 32], [0, 0, 32, 32]))  # an anchor of each level
    assert {v.path for v in model.trainable_variables if np.array_equal(v.numpy(), before[v.path])} == set()


def test_a_plain_models_weights_start_a_deformable_cascade(bundled_model, sample_photo):
    """The same faces and boxes: those of the first heads, which the second leave as they are."""
    model = RetinaFace(**{**bundled_model.get_config(), "deformable": "v2", "cascade": True})
    warm_start(model, bundled_model)
    images = load_image(sample_photo)[None, 60:190, 170:290]
    expected, found = bundled_model(images), model(images)
    for ours, theirs in (("first_face", "face"), ("first_box", "box"), ("face", "face"), ("landmark", "landmark")):
        np.testing.assert_allclose(found[ours], expected[theirs], atol=1e-4)
    assert not found["box"].numpy().any()
    with pytest.raises(ValueError, match="deformable is v2, not None; cascade is True, not False"):
        warm_start(bundled_model, model)  # what a model has learned to move can't be left out


def test_a_cascade_needs_two_targets_and_others_one(model, bundled_model):
    with pytest.raises(ValueError, match="`first_target` must be given for a model with a cascade, and only then"):
        model.compile("sgd", loss=Objective())
    with pytest.raises(ValueError, match="`first_target` must be given for a model with a cascade"):
        bundled_model.compile("sgd", loss=Objective(first_target=AnchorTarget()))
