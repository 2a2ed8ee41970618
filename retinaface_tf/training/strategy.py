"""Which devices train together, and which part of each batch does a device get?"""

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import tree

from retinaface_tf.training.multi_worker import mend_keras

STRATEGIES = ("auto", "mirrored", "multiworker", "tpu", "none")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy of a name. Make it first: once TensorFlow ran an operation, it is too late for the multi-worker one.

    Args:
        name: "mirrored": all GPUs of this machine, or, without any, its logical CPU devices; "multiworker": the
            processes that the environment variable `TF_CONFIG` lists, waiting until all have come; "tpu": the one that
            `TPU_NAME` names, or of this machine; "none": one device; "auto": multi-worker if `TF_CONFIG` lists several
            workers, else TPU if there is one, else mirrored if there are several GPUs, else none.

    Returns:
        `tf.distribute.Strategy`; for "none" TensorFlow's default one, whose `scope` does nothing.

    Raises:
        ValueError: unknown name, devices or `TF_CONFIG` that do not serve, or too late.
        OSError: this worker can't listen on its address.
    """
    if name not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {list(STRATEGIES)}. Received: strategy={name!r}")
    if name == "auto":
        name = _best()
    if name == "multiworker":
        return _multiworker()
    if name == "mirrored":
        return _mirrored()
    return _tpu() if name == "tpu" else tf.distribute.get_strategy()


def distribute(strategy: tf.distribute.Strategy, make_dataset: Callable[[int, int], tf.data.Dataset]) -> Any:
    """What `model.fit` takes under a strategy.

    Args:
        strategy: of `make_strategy`.
        make_dataset: function (worker, num_workers) -> `tf.data.Dataset` of that worker's part of each global batch.
            All parts have the same size, which must be static (`drop_remainder=True`) where a worker has several
            devices: they share its batch evenly. Any other dimension may differ from step to step and worker to
            worker. Nothing is sharded again.

    Returns:
        The dataset itself, or a distributed one.

    Raises:
        ValueError: the batch can't be split evenly over the replicas of a worker.
    """
    if strategy.num_replicas_in_sync == 1:
        return make_dataset(0, 1)

    def dataset_of_worker(context):
        dataset = make_dataset(context.input_pipeline_id, context.num_input_pipelines)
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        if replicas == 1:
            return dataset
        batch = tree.flatten(dataset.element_spec)[0].shape[0]
        if batch is None or batch % replicas:
            raise ValueError(
                f"the batch of a worker must have a static size that is a multiple of its {replicas} devices. "
                f"Received: {batch or 'unknown'}"
            )
        return dataset.rebatch(batch // replicas)

    return strategy.distribute_datasets_from_function(dataset_of_worker)


def _best():
    if os.environ.get("TF_CONFIG") and len(_workers()) > 1:
        return "multiworker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _workers():
    """Addresses of all workers of `TF_CONFIG`, after a look at all that can be wrong with it."""
    text = os.environ.get("TF_CONFIG")
    shape = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    if not text:
        raise ValueError(f"the multi-worker strategy needs the environment variable TF_CONFIG: {shape}")
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        jobs = {job: list(addresses) for job, addresses in cluster.items()}
        if not jobs:
            return []
        if unknown := sorted(set(jobs) - {"chief", "worker"}):
            raise ValueError(f"it has the jobs {unknown}, and only `chief` and `worker` train here")
        if not 0 <= int(task["index"]) < len(jobs[task["type"]]):
            raise ValueError(f"task {task['index']} is not one of the {len(jobs[task['type']])} of `{task['type']}`")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG must look like {shape} ({type(error).__name__}: {error}). Received: {text}"
        ) from None
    return [address for addresses in jobs.values() for address in addresses]


def _multiworker():
    if len(workers := _workers()) < 2:
        raise ValueError(f"the multi-worker strategy needs several workers in TF_CONFIG. Received: {workers}")
    mend_keras()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(
            f"too late for the multi-worker strategy: make it before TensorFlow runs its first operation ({error})"
        ) from None
    except tf.errors.OpError as error:
        raise OSError(
            "this worker of TF_CONFIG can't join the others; is its port free, and reachable by them? "
            f"({error.message}) Received: {os.environ['TF_CONFIG']}"
        ) from None


def _mirrored():
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        raise ValueError(
            "the mirrored strategy needs GPUs, or several logical CPU devices; there is one CPU. Use strategy 'none'"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _tpu():
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        line = " ".join(str(error).split())
        raise ValueError(
            f"no TPU answers: set TPU_NAME, or use the TensorFlow that is built for TPUs ({line})"
        ) from None
