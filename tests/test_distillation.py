"""What the teacher says counts where the labels are silent: against NumPy, and in a training step."""

import numpy as np
import pytest
import tensorflow as tf
from small_training import small_batch, small_model, step

from retinaface_tf.geometry.anchor_target import Targets
from retinaface_tf.training.distillation import Distillation
from retinaface_tf.training.objective import Objective, global_means

ANCHORS = tf.constant([[0.0, 0, 8, 8]] * 6)


@pytest.fixture(scope="module")
def teacher():
    return small_model(1)


def case():
    """Six anchors of an image: two faces of the labels (the second without landmarks), four background."""
    random = np.random.default_rng(3)
    logit = np.array([4.0, 3.0, 5.0, 1.5, -1.0, -8.0], "float32")  # of the teacher: sees the first four
    faces = np.array([1, 1, 0, 0, 0, 0], "float32")
    landmark_weights = np.zeros((6, 5), "float32")
    landmark_weights[0, :4] = 1
    targets = Targets(
        faces=faces,
        face_weights=np.ones(6, "float32"),
        boxes=random.normal(size=(6, 4)),
        box_weights=faces,
        landmarks=random.normal(size=(6, 5, 2)),
        landmark_weights=landmark_weights,
    )
    targets = Targets(*(tf.constant(value[None], tf.float32) for value in targets if value is not None))

    def predictions(difference):
        face = np.stack([np.ones(6), 1 + difference], axis=-1)
        return {
            name: tf.constant(value[None], tf.float32)
            for name, value in (
                ("face", face),
                ("box", random.normal(size=(6, 4))),
                ("landmark", random.normal(size=(6, 5, 2))),
            )
        }

    return targets, predictions(logit), predictions(random.normal(size=6))


def mean(value):
    return global_means({"distillation": value})["distillation"].numpy()


def test_loss_against_numpy(teacher):
    targets, theirs, ours = case()
    value = mean(Distillation(teacher, weight=0.5, landmark_weight=0.3).loss(targets, theirs, ours))

    def probability(p):
        return 1 / (1 + np.exp(-(p["face"][0, :, 1] - p["face"][0, :, 0]).numpy().astype(float)))

    def huber(name, anchor, points=slice(None)):
        error = np.abs(ours[name].numpy() - theirs[name].numpy()).astype(float)[0, anchor][points]
        return np.where(error < 1, error**2 / 2, error - 0.5).sum()

    p, q = probability(theirs), probability(ours)
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    expected = divergence[2:].sum()
    expected += huber("box", 2) + huber("box", 3)
    expected += 0.3 * huber("landmark", 0, [4]) + 0.3 * sum(huber("landmark", anchor) for anchor in (1, 2, 3))
    assert value == pytest.approx(0.5 * expected / 4, rel=1e-5)


def test_the_teacher_itself_loses_nothing_and_empty_images_do_not_count(teacher):
    targets, theirs, ours = case()
    distillation = Distillation(teacher)
    assert mean(distillation.loss(targets, theirs, theirs)) == pytest.approx(0, abs=1e-6)
    assert mean(distillation.loss(targets, theirs, ours, tf.zeros(1))) == 0


def test_faces_that_only_the_teacher_sees_are_ignored_by_the_labels(teacher):
    targets, theirs, _ = case()
    opened = Distillation(teacher, ignore_score=0.9).mask_targets(targets, theirs, ANCHORS)
    np.testing.assert_array_equal(opened.face_weights[0], [1, 1, 0, 1, 1, 1])  # 1.5 is a probability of 0.82
    assert opened.box_weights is targets.box_weights
    # Of the two labeled faces the teacher has the first as it is, and the second an anchor's width further right.
    labeled = targets._replace(boxes=theirs["box"] + [[[0] * 4, [10.0, 0, 0, 0], *[[0] * 4] * 4]])
    kept = Distillation(teacher, keep_boxes=0.6).mask_targets(labeled, theirs, ANCHORS)
    np.testing.assert_array_equal(kept.box_weights[0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(kept.face_weights[0], [1, 1, 0, 0, 1, 1])


@pytest.mark.slow
def test_a_step_learns_from_both_and_the_teacher_stays(teacher):
    plain, taught = small_model(2), small_model(2)
    distillation = Distillation(teacher, weight=3.0)
    before = [value.copy() for value in distillation.teacher.get_weights()]
    taught.compile(taught.optimizer, loss=Objective(distillation=distillation), run_eagerly=True)
    assert len(taught.trainable_variables) == len(plain.trainable_variables)  # the teacher is no part of it
    logs = taught.train_step(small_batch())
    step(plain)
    assert taught.loss_names == (*plain.loss_names, "distillation")
    assert float(logs["distillation"]) > 0
    total = sum(float(logs[name]) for name in taught.loss_names)
    assert float(logs["loss"]) == pytest.approx(total, rel=1e-5)
    assert any((a != b).any() for a, b in zip(plain.get_weights(), taught.get_weights(), strict=True))
    for old, new in zip(before, distillation.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": 0},
        {"weight": -1},
        {"ignore_score": 0},
        {"ignore_score": 1.5},
        {"keep_boxes": 0},
        {"landmark_weight": -1},
    ],
)
def test_out_of_range(teacher, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Distillation(teacher, **options)
