"""Does each name give its strategy, and is a wrong name, TF_CONFIG or moment one clear line?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

from retinaface_tf.training import strategy as strategies  # noqa: E402
from retinaface_tf.training.strategy import (  # noqa: E402
    STRATEGIES,
    checkpoint_folder,
    distribute,
    from_chief,
    is_chief,
    lost_worker_is_one_line,
    make_strategy,
    num_workers,
)

pytestmark = pytest.mark.slow  # starts processes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


def cluster(workers, index=0, kind="worker", **more):
    addresses = [f"127.0.0.1:{port}" for port in range(9000, 9000 + workers)]
    return json.dumps({"cluster": {"worker": addresses, **more}, "task": {"type": kind, "index": index}})


def test_a_mistyped_name_lists_the_names():
    with pytest.raises(ValueError, match=r"one of .*auto.*mirrored.*multiworker.*tpu.*none.*'miror'"):
        make_strategy("miror")
    assert STRATEGIES == ("auto", "mirrored", "multiworker", "tpu", "none")


@pytest.mark.parametrize("name", ["none", "auto"])
def test_one_device_needs_no_strategy(name, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    strategy = make_strategy(name)
    assert strategy.num_replicas_in_sync == 1
    with strategy.scope():
        assert not tf.distribute.has_strategy()
    assert is_chief(strategy)
    assert num_workers(strategy) == 1
    assert from_chief(strategy, 7) == 7
    with checkpoint_folder(strategy, "run/checkpoints") as folder:
        assert folder == Path("run/checkpoints")


def test_auto_with_a_cluster_of_one_is_none(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster(1))
    assert make_strategy("auto").num_replicas_in_sync == 1


@pytest.mark.parametrize(
    "config, complaint",
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "TF_CONFIG must look like"),
        ("[]", "TF_CONFIG must look like"),
        ("{}", "several workers"),
        (cluster(1), "several workers"),
        (cluster(2, index=2), "task 2 is not one of the 2"),
        (cluster(2, kind="chief"), "'chief'"),
        (cluster(2, ps=["127.0.0.1:9100"]), "only `chief` and `worker`"),
    ],
)
def test_a_wrong_cluster_is_one_line(config, complaint, monkeypatch):
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=complaint) as caught:
        make_strategy("multiworker")
    assert "\n" not in str(caught.value)


def test_auto_refuses_a_broken_cluster_rather_than_training_alone(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "worker0,worker1")
    with pytest.raises(ValueError, match="TF_CONFIG must look like"):
        make_strategy("auto")


def test_multi_worker_after_the_first_operation_is_too_late(monkeypatch):
    _ = tf.constant(1) + 1
    monkeypatch.setenv("TF_CONFIG", cluster(2))
    with pytest.raises(ValueError, match="must be made before TensorFlow runs its first operation"):
        make_strategy("multiworker")


def test_mirrored_needs_several_devices(monkeypatch):
    cpu = tf.config.list_logical_devices("CPU")[:1]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: cpu if kind == "CPU" else [])
    with pytest.raises(ValueError, match="needs GPUs, or several logical CPU devices"):
        make_strategy("mirrored")


def test_no_tpu_is_one_line():
    if tf.config.list_physical_devices("TPU"):
        pytest.skip("there is a TPU")
    with pytest.raises(ValueError, match=r"no TPU found. Set TPU_NAME"):
        make_strategy("tpu")


def test_only_a_lost_worker_is_called_one():
    with pytest.raises(tf.errors.UnavailableError), lost_worker_is_one_line(make_strategy("none")):
        raise tf.errors.UnavailableError(None, None, "a file server sleeps")


def test_a_lost_worker_is_one_line(monkeypatch):
    monkeypatch.setattr(strategies, "num_workers", lambda strategy: 2)
    message = "Graph execution error:\n\nCollective ops is aborted by: task:1 stopped sending heartbeats\nRestart\n"
    with (
        pytest.raises(ConnectionError, match=r"Start all workers again .*\(task:1 stopped sending heartbeats\)$"),
        lost_worker_is_one_line(make_strategy("none")),
    ):
        raise tf.errors.UnavailableError(None, None, message)
    with pytest.raises(tf.errors.InvalidArgumentError), lost_worker_is_one_line(make_strategy("none")):
        raise tf.errors.InvalidArgumentError(None, None, "shapes differ")


def test_one_device_gets_the_data_set_itself():
    dataset = tf.data.Dataset.range(3)
    asked = []
    assert distribute(make_strategy("none"), lambda *parts: asked.append(parts) or dataset) is dataset
    assert asked == [(0, 1)]


TWO_DEVICES = """
import tensorflow as tf
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
from retinaface_tf.training.strategy import distribute, make_strategy
strategy = make_strategy("mirrored")
print("replicas", strategy.num_replicas_in_sync)
numbers = lambda batch, **kwargs: lambda worker, workers: tf.data.Dataset.range(12).batch(batch, **kwargs)
for batch in distribute(strategy, numbers(4, drop_remainder=True)):
    print([part.numpy().tolist() for part in strategy.experimental_local_results(batch)])
for make in (numbers(3, drop_remainder=True), numbers(4)):
    try:
        distribute(strategy, make)
    except ValueError as error:
        print(error)
"""


def test_two_logical_devices_share_each_batch():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    result = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=environment, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert lines[:4] == ["replicas 2", "[[0, 1], [2, 3]]", "[[4, 5], [6, 7]]", "[[8, 9], [10, 11]]"], result.stderr
    assert [line.rpartition(" ")[2] for line in lines[4:]] == ["3", "unknown"]
    assert all("multiple of its 2 devices" in line for line in lines[4:])
