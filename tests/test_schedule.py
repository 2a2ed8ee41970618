"""The learning rate at steps picked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from retinaface_tf.training.optimizer import WarmupSchedule

CHANGED = {
    "learning_rate": 0.4,
    "kind": "cosine",
    "total_steps": 50,
    "warmup_steps": 10,
    "warmup_rate": 0.02,
    "decay_steps": (20, 30),
    "decay_factor": 0.5,
    "final_rate": 0.1,
}


def rates(schedule, steps):
    eager = [float(schedule(step)) for step in steps]
    graph = tf.function(schedule, input_signature=[tf.TensorSpec([], tf.int64)])
    np.testing.assert_allclose([float(graph(step)) for step in steps], eager, rtol=1e-6)
    return eager


def test_steps():
    schedule = WarmupSchedule(1e-3, decay_steps=(190, 220))
    values = rates(schedule, [0, 189, 190, 219, 220, 10**6])
    np.testing.assert_allclose(values, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5], rtol=1e-5)


def test_warm_up_is_a_line_that_ends_at_the_rate():
    schedule = WarmupSchedule(1e-2, warmup_steps=10, warmup_rate=1e-3, decay_steps=(20,))
    values = rates(schedule, [0, 1, 5, 9, 10, 11, 19, 20])
    np.testing.assert_allclose(values, [1e-3, 1.9e-3, 5.5e-3, 9.1e-3, 1e-2, 1e-2, 1e-2, 1e-3], rtol=1e-5)


def test_cosine():
    schedule = WarmupSchedule(1.0, kind="cosine", total_steps=110, warmup_steps=10, final_rate=0.2)
    values = rates(schedule, [0, 5, 10, 35, 60, 85, 110, 500])
    quarter = 0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi / 4))
    np.testing.assert_allclose(values, [0, 0.5, 1, quarter, 0.6, 1.2 - quarter, 0.2, 0.2], rtol=1e-5, atol=1e-6)


def test_constant():
    assert rates(WarmupSchedule(0.25, kind="constant"), [0, 7, 10**6]) == [0.25] * 3
    assert rates(WarmupSchedule(0.25), [0, 7, 10**6]) == [0.25] * 3  # steps without a step


def test_a_warm_up_longer_than_the_run():
    for kind in ("cosine", "step", "constant"):
        values = rates(WarmupSchedule(1.0, kind=kind, total_steps=5, warmup_steps=10), [0, 4, 10])
        np.testing.assert_allclose(values, [0, 0.4, 1.0], rtol=1e-6)


def test_config():
    schedule = WarmupSchedule(**CHANGED)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is WarmupSchedule
    plain = WarmupSchedule(0.3)
    for name, value in CHANGED.items():
        assert getattr(again, name) == getattr(schedule, name) == value != getattr(plain, name), name
    assert rates(again, range(0, 60, 7)) == rates(schedule, range(0, 60, 7))


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"`kind` must be one of \['step', 'cosine', 'constant'\].*'linear'"):
        WarmupSchedule(0.1, kind="linear")
