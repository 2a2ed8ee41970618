"""The whole trainer on several devices and in several processes: the losses and weights of one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_train import WORDS, require_same_weights, rows, tree  # noqa: F401

pytestmark = pytest.mark.slow  # starts workers

RUN = Path(__file__).parent / "distributed_run.py"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory):  # noqa: F811
    """Folder of the runs "one", "mirrored" and "workers": two steps of 4 photos, synchronized normalization."""
    folder = tmp_path_factory.mktemp("runs")
    words = [*WORDS, "data.batch_size=4", "steps_per_epoch=2", "epochs=1", "sync_batch_norm=true"]
    words += ["optimizer.clip_norm=5", "optimizer.average=0.5"]
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    config = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    plans = [("one", 1, "none", None), ("mirrored", 2, "mirrored", None)]
    plans += [("workers", 1, "multiworker", one) for one in config]
    processes = []
    try:
        for name, devices, strategy, tf_config in plans:
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
            environment |= {"TF_CONFIG": json.dumps(tf_config)} if tf_config else {}
            command = [
                sys.executable,
                RUN,
                str(devices),
                strategy,
                tree / "preset",
                tree / "shards",
                folder / name,
                *words,
            ]
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        outputs = [process.communicate(timeout=1800)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(outputs)
    return folder


@pytest.mark.parametrize("name", ["mirrored", "workers"])
def test_several_devices_train_as_one(runs, name):
    one, other = rows(runs / "one" / "steps.csv"), rows(runs / name / "steps.csv")
    assert [row["step"] for row in one] == [row["step"] for row in other] == [1, 2]
    for key in ("loss", "face", "box", "landmark"):
        np.testing.assert_allclose([r[key] for r in other], [r[key] for r in one], rtol=1e-4, err_msg=key)
    counts = [rows(runs / each / "log.csv")[0]["faces"] for each in ("one", name)]
    assert counts[0] == counts[1] > 0
    require_same_weights(runs / name / "model.keras", runs / "one" / "model.keras", atol=1e-4)


def test_only_the_chief_writes(runs):
    assert len(list((runs / "workers" / "tensorboard").glob("events*"))) == 1
    assert len(list((runs / "workers" / "checkpoints").glob("step-2.index"))) == 1
