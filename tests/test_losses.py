"""Every loss against its paper's formula in float64 NumPy, and its gradient against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from retinaface_tf.training.losses import (
    diou_loss,
    focal_loss,
    giou_loss,
    mined_cross_entropy,
    paired_iou,
    quality_focal_loss,
    smooth_l1,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (2, 9, 2)).astype("float32")
FACES = np.array([[1, 0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0, 0]], "float32")
WEIGHTS = np.array([[1, 1, 0, 1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1, 1, 1, 1]], "float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def check(ours, theirs, value, step=1e-5, rtol=2e-4):
    """Value and gradient of `ours` (TensorFlow) with respect to `value` are those of `theirs` (NumPy)."""
    tensor = tf.constant(value, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = ours(tensor)
    value = np.asarray(tensor, np.float64)
    np.testing.assert_allclose(loss, theirs(value), rtol=1e-5, atol=1e-6)
    slopes = np.zeros_like(value)
    for index in np.ndindex(value.shape):
        moved = [value.copy(), value.copy()]
        moved[0][index] -= step
        moved[1][index] += step
        slopes[index] = (theirs(moved[1]) - theirs(moved[0])) / (2 * step)
    np.testing.assert_allclose(tape.gradient(loss, tensor), slopes, rtol=rtol, atol=1e-5)


def mined(logits, faces, weights, ratio, without=0):
    """A loop over images: the sum of the faces' losses and of the largest of the others."""
    total = 0
    for one, face, weight in zip(np.asarray(logits, float), faces, weights, strict=True):
        losses = np.log(np.exp(one).sum(axis=-1))[:, None] - one
        positive = [losses[a, 1] for a in range(len(one)) if face[a] and weight[a]]
        negative = sorted((losses[a, 0] for a in range(len(one)) if not face[a] and weight[a]), reverse=True)
        total += sum(positive) + sum(negative[: ratio * len(positive) if positive else without])
    return total


def test_labels_with_a_score_are_learned_as_that_probability():
    """Cross-entropy against q and 1 - q; least where the face probability is q; and 1 is a label of people."""
    quality = np.where(FACES > 0, 0.75, 0.0).astype("float32")

    def theirs(logits):
        log_face = -np.log1p(np.exp(logits[..., 0] - logits[..., 1]))
        log_background = -np.log1p(np.exp(logits[..., 1] - logits[..., 0]))
        soft = -(0.75 * log_face + 0.25 * log_background)
        return (FACES * WEIGHTS * soft).sum() + mined(logits, 0 * FACES, WEIGHTS * (1 - FACES), 0, 0)

    check(lambda x: mined_cross_entropy(x, FACES, WEIGHTS, 0, 0, tf.constant(quality)), theirs, LOGITS)
    one = mined_cross_entropy(LOGITS, FACES, WEIGHTS, 7, 0, tf.constant(FACES))
    np.testing.assert_allclose(one, mined_cross_entropy(LOGITS, FACES, WEIGHTS, 7), rtol=1e-6)
    one, score = tf.ones([1, 1]), tf.constant([[0.75]])
    logits = [tf.constant([[[0, np.log(p / (1 - p))]]], tf.float32) for p in (0.65, 0.75, 0.85)]
    costs = [float(mined_cross_entropy(each, one, one, 0, 0, score)) for each in logits]
    assert costs[1] == min(costs)


@pytest.mark.parametrize("ratio", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("without", [0, 2, 100])
def test_mined_cross_entropy(ratio, without):
    faces = np.concatenate([FACES, np.zeros((1, 9), "float32")])
    weights = np.concatenate([WEIGHTS, np.float32([[1, 1, 1, 0, 0, 1, 1, 1, 1]])])
    logits = np.concatenate([LOGITS, LOGITS[:1, ::-1]])
    check(
        lambda x: mined_cross_entropy(x, faces, weights, ratio, without),
        lambda x: mined(x, faces, weights, ratio, without),
        logits,
    )


def test_of_equal_negatives_the_first_are_mined():
    logits = np.zeros((1, 6, 2), "float32")
    logits[0, 5, 1] = 3  # the hardest is the last
    tensor = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = mined_cross_entropy(tensor, tf.constant([[0.0, 1, 0, 0, 0, 0]]), tf.ones([1, 6]), 3)
    np.testing.assert_allclose(loss, 3 * np.log(2) + np.log(1 + np.exp(3)), rtol=1e-6)
    touched = np.flatnonzero(tape.gradient(loss, tensor).numpy()[0].any(axis=-1))
    assert touched.tolist() == [0, 1, 2, 5]


def test_sure_negatives_count_though_they_cost_nothing():
    """A loss of exactly 0 is a negative like others: nothing but its number tells it from an anchor left out."""
    logits = tf.constant([[[0.0, 0], [200, 0], [200, 0], [200, 0]]])
    loss = mined_cross_entropy(logits, tf.constant([[1.0, 0, 0, 0]]), tf.ones([1, 4]), 7)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("loss", [lambda *a: mined_cross_entropy(*a, 7), focal_loss, quality_focal_loss])
def test_wild_logits_stay_finite(loss):
    logits = tf.constant(np.array([[[0, 1e4], [1e4, 0], [-1e4, 1e4], [1e4, -1e4]]], "float32"))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits, tf.constant([[1.0, 1, 0, 0]]), tf.ones([1, 4]))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, logits).numpy()).all()


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.5)])
def test_focal(alpha, gamma):
    def formula(logits):
        p = sigmoid(logits[..., 1] - logits[..., 0])
        true = np.where(FACES > 0, p, 1 - p)
        balance = np.where(FACES > 0, alpha, 1 - alpha)
        return np.sum(-WEIGHTS * balance * (1 - true) ** gamma * np.log(true))

    check(lambda x: focal_loss(x, FACES, WEIGHTS, alpha, gamma), formula, LOGITS)


@pytest.mark.parametrize("beta", [2.0, 1.5])
def test_quality_focal(beta):
    quality = (FACES * RANDOM.uniform(0.2, 1, FACES.shape)).astype("float32")

    def formula(logits):
        p, y = sigmoid(logits[..., 1] - logits[..., 0]), quality
        return np.sum(-WEIGHTS * np.abs(y - p) ** beta * ((1 - y) * np.log(1 - p) + y * np.log(p)))

    check(lambda x: quality_focal_loss(x, quality, WEIGHTS, beta), formula, LOGITS)


def test_no_gradient_flows_into_the_quality():
    quality = tf.constant(FACES)
    with tf.GradientTape() as tape:
        tape.watch(quality)
        loss = quality_focal_loss(LOGITS, quality, WEIGHTS)
    assert tape.gradient(loss, quality) is None


def test_smooth_l1():
    values, targets = RANDOM.normal(0, 1.5, (2, 2, 3, 4))
    weights = np.array([[1, 0, 0.5], [1, 1, 1]])

    def formula(x):
        error = np.abs(x - np.float32(targets))
        return np.sum(weights[..., None] * np.where(error < 1, error**2 / 2, error - 0.5))

    check(lambda x: smooth_l1(x, tf.constant(targets, tf.float32), tf.constant(weights, tf.float32)), formula, values)
    by_eye = smooth_l1(tf.constant([[0.0, 0.5, -2, 1]]), tf.zeros([1, 4]), tf.ones([1]))
    np.testing.assert_allclose(by_eye, 0 + 0.125 + 1.5 + 0.5)


def some_boxes(number=12):
    low = RANDOM.uniform(0, 6, (2, number, 2))
    both = np.concatenate([low, low + RANDOM.uniform(1, 6, (2, number, 2))], axis=-1).astype("float32")
    both[0, 0], both[1, 0] = [0, 0, 2, 2], [5, 5, 7, 8]  # apart
    both[0, 1], both[1, 1] = [1, 1, 6, 6], [2, 3, 4, 5]  # one inside the other
    return both


def overlap(one, other):
    sides = np.maximum(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0)
    both = sides.prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - both
    hull = np.maximum(one[..., 2:], other[..., 2:]) - np.minimum(one[..., :2], other[..., :2])
    return both, union, hull


@pytest.mark.parametrize("name", ["giou", "diou"])
def test_giou_and_diou(name):
    boxes, truth = some_boxes()
    weights = np.ones(len(boxes), "float32")
    weights[3], weights[4] = 0, 0.5

    def formula(x):
        both, union, hull = overlap(x, truth.astype(float))
        if name == "giou":
            penalty = (hull.prod(axis=-1) - union) / hull.prod(axis=-1)
        else:
            shift = (x[..., :2] + x[..., 2:] - truth[..., :2] - truth[..., 2:]) / 2
            penalty = (shift**2).sum(axis=-1) / (hull**2).sum(axis=-1)
        return np.sum(weights * (1 - both / union + penalty))

    loss = giou_loss if name == "giou" else diou_loss
    check(lambda x: loss(x, truth, weights), formula, boxes)


def test_giou_and_diou_by_eye():
    boxes, truth = tf.constant([[0.0, 0, 2, 2]]), tf.constant([[2.0, 0, 4, 2]])
    np.testing.assert_allclose(giou_loss(boxes, truth, tf.ones(1)), 1)  # side by side: the hull is full
    np.testing.assert_allclose(diou_loss(boxes, truth, tf.ones(1)), 1 + 4 / 20)
    for loss in (giou_loss, diou_loss):
        np.testing.assert_allclose(loss(boxes, boxes, tf.ones(1)), 0, atol=1e-6)


@pytest.mark.parametrize("loss", [giou_loss, diou_loss])
def test_boxes_without_area_or_weight_are_harmless(loss):
    boxes = tf.constant([[1.0, 1, 1, 1], [0, 0, 4, 4], [np.inf, 0, np.inf, 1]])
    truth = tf.constant([[1.0, 1, 1, 1], [0, 0, 4, 4], [0, 0, 1, 1]])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        value = loss(boxes[:2], truth[:2], tf.constant([1.0, 1])) + loss(boxes[:1], truth[:1], tf.constant([0.0]))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, boxes).numpy()).all()
    assert loss(boxes, truth, tf.zeros(3)) == 0


def test_paired_iou():
    boxes, truth = some_boxes()
    both, union, _ = overlap(boxes.astype(float), truth.astype(float))
    np.testing.assert_allclose(paired_iou(boxes, truth), both / union, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(paired_iou(tf.zeros([2, 4]), tf.zeros([2, 4])), 0)


def test_no_anchors_cost_nothing():
    nothing = tf.zeros([2, 0])
    assert mined_cross_entropy(tf.zeros([2, 0, 2]), nothing, nothing, 7, 3) == 0
    assert focal_loss(tf.zeros([2, 0, 2]), nothing, nothing) == 0
    assert smooth_l1(tf.zeros([2, 0, 4]), tf.zeros([2, 0, 4]), nothing) == 0
