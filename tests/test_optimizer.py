"""SGD as PyTorch writes it, against a loop of its formula: decay, clipping, accumulation, EMA, loss scaling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from retinaface_tf import RetinaFace
from retinaface_tf.training.build import build_optimizer
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD, WarmupSchedule, ema_pairs

RATES = [0.5, 0.5, 0.05, 0.005, 0.005]
START = [np.array([[1.0, -2.0, 0.5]]), np.array([3.0])]


def gradients(steps, seed=0):
    random = np.random.default_rng(seed)
    return [[random.normal(0, 2, value.shape) for value in START] for _ in range(steps)]


def schedule():
    return WarmupSchedule(0.5, decay_steps=(2, 3))


def ours(optimizer, steps):
    """Values of the variables after each step, the steps run in a graph."""
    variables = [keras.Variable(value.astype("float32")) for value in START]
    optimizer.build(variables)
    apply = tf.function(lambda *g: optimizer.apply(list(g), variables))
    history = []
    for step in steps:
        apply(*(tf.constant(g, tf.float32) for g in step))
        history.append([variable.numpy() for variable in variables])
    return history


def pytorch(steps, momentum=0.9, coupled=0.0, decoupled=0.0, nesterov=False, clip=None):
    """clip_grad_norm_, then torch.optim.SGD.step: weight decay into the gradient, momentum buffer, rate outside."""
    values, buffers, history = [v.copy() for v in START], [0.0, 0.0], []
    for rate, step in zip(RATES, steps, strict=False):
        norm = np.sqrt(sum((g**2).sum() for g in step))
        for i, gradient in enumerate(step):
            gradient = gradient * (min(1, clip / norm) if clip else 1)
            values[i] = values[i] * (1 - rate * decoupled)
            gradient = gradient + coupled * values[i]
            buffers[i] = momentum * buffers[i] + gradient
            values[i] = values[i] - rate * (gradient + momentum * buffers[i] if nesterov else buffers[i])
        history.append([v.copy() for v in values])
    return history


def agree(one, other):
    for left, right in zip(one, other, strict=True):
        for value, wanted in zip(left, right, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({}, {}),
        ({"momentum": 0.0}, {"momentum": 0.0}),
        ({"momentum": 0.5, "nesterov": True}, {"momentum": 0.5, "nesterov": True}),
        ({"coupled_decay": 0.1}, {"coupled": 0.1}),
        ({"coupled_decay": 0.1, "nesterov": True}, {"coupled": 0.1, "nesterov": True}),
        ({"weight_decay": 0.1}, {"decoupled": 0.1}),
        ({"global_clipnorm": 1.5}, {"clip": 1.5}),
        ({"global_clipnorm": 1000.0}, {}),
        ({"global_clipnorm": 1.5, "coupled_decay": 0.3}, {"clip": 1.5, "coupled": 0.3}),
        ({"global_clipnorm": 1.5, "weight_decay": 0.3}, {"clip": 1.5, "decoupled": 0.3}),
    ],
    ids=str,
)
def test_steps_are_those_of_the_formula(options, formula):
    steps = gradients(5)
    agree(ours(MomentumSGD(schedule(), **options), steps), pytorch(steps, **formula))


@pytest.mark.parametrize("options", [{"coupled_decay": 0.1, "global_clipnorm": 1.5}, {"weight_decay": 0.1}])
def test_accumulated_steps_are_one_of_their_mean(options):
    steps = gradients(15)
    means = [[np.mean([step[i] for step in steps[n : n + 3]], axis=0) for i in range(2)] for n in range(0, 15, 3)]
    history = ours(MomentumSGD(schedule(), gradient_accumulation_steps=3, **options), steps)
    # The schedule counts updates too: its drops are where they are without accumulation.
    expected = ours(MomentumSGD(schedule(), **options), means)
    agree(history[2::3], expected)
    agree(history[0:2], [START, START])
    agree(history[3:5], [expected[0]] * 2)


@pytest.mark.parametrize("accumulate", [None, 3])
def test_averages(accumulate):
    optimizer = MomentumSGD(0.1, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=accumulate)
    variables = [keras.Variable(value.astype("float32")) for value in START]
    optimizer.build(variables)
    every, expected = accumulate or 1, None
    for number, step in enumerate(gradients(4 * every)):
        optimizer.apply([tf.constant(g, tf.float32) for g in step], variables)
        if (number + 1) % every == 0:
            now = [variable.numpy() for variable in variables]
            # It begins with the weights of the first update, and has one more share of each later one.
            expected = now if expected is None else [0.8 * a + 0.2 * v for a, v in zip(expected, now, strict=True)]
        if expected is not None:
            agree([[average.numpy() for _, average in ema_pairs(optimizer)]], [expected])
    optimizer.finalize_variable_values(variables)
    agree([[variable.numpy() for variable in variables]], [now])
    assert ema_pairs(MomentumSGD(0.1)) == []


def test_config():
    options = {"momentum": 0.7, "coupled_decay": 0.2, "nesterov": True, "global_clipnorm": 3.0, "weight_decay": 0.1}
    optimizer = MomentumSGD(WarmupSchedule(0.3, warmup_steps=2), **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is MomentumSGD
    for name, value in options.items():
        assert getattr(again, name) == value
    steps = gradients(4)
    agree(ours(again, steps), ours(MomentumSGD(WarmupSchedule(0.3, warmup_steps=2), **options), steps))


def test_the_recipe_reaches_the_optimizer():
    from retinaface_tf.training.config import TrainConfig, override

    changes = {"momentum": 0.8, "weight_decay": 0.01, "clip_norm": 2.0, "accumulate": 4, "average": 0.99}
    config = override(TrainConfig(epochs=10), {"optimizer": changes, "schedule.decay_epochs": [5, 8]})
    optimizer = build_optimizer(config, steps_per_epoch=100)
    assert (optimizer.momentum, optimizer.coupled_decay, optimizer.weight_decay) == (0.8, 0.01, None)
    assert (optimizer.global_clipnorm, optimizer.gradient_accumulation_steps) == (2.0, 4)
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.99)
    decoupled = build_optimizer(override(config, {"optimizer.decoupled": True}), 100)
    assert (decoupled.coupled_decay, decoupled.weight_decay) == (0, 0.01)
    # Epoch 5 begins after 500 batches, which are 125 updates.
    optimizer.build([keras.Variable(START[0])])
    for batches, rate in ((0, 1e-3), (499, 1e-3), (500, 1e-4), (799, 1e-4), (800, 1e-5)):
        optimizer._iterations.assign(batches)
        np.testing.assert_allclose(optimizer.learning_rate, rate, rtol=1e-5)


@pytest.mark.slow
def test_float16_scales_the_loss():
    keras.utils.set_random_seed(0)
    model = RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)}, dtype="mixed_float16")
    model.compile(MomentumSGD(1e-3), loss=Objective())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    scaled = keras.optimizers.LossScaleOptimizer(MomentumSGD(1e-3, use_ema=True), initial_scale=32.0)
    model.compile(scaled, loss=Objective(), run_eagerly=True)
    assert model.optimizer is scaled
    faces = {
        "boxes": np.zeros((1, 1, 4), "float32"),
        "landmarks": np.zeros((1, 1, 5, 2), "float32"),
        "visible": np.full((1, 1, 5), -1, "int32"),
    }
    faces["boxes"][0, 0] = [8, 8, 40, 40]
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype("uint8")
    before = model.get_weights()
    model.fit(tf.data.Dataset.from_tensors((images, faces)).repeat(2), verbose=0, shuffle=False)
    assert len(ema_pairs(model.optimizer)) == len(model.trainable_variables)
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert sum(changed) > 0.8 * len(changed)  # all but those whose gradient is 0
