"""Distribution over devices and workers: strategies, the parts of a batch, and what the workers agree on.

Under any strategy but the multi-worker one there is one worker, the chief, and nothing to agree on.
"""

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow import trainer

from retinaface_tf.common.types import PathLike


def mend_keras() -> None:
    """Workaround so that `fit` and `evaluate` run under `MultiWorkerMirroredStrategy`. Can be called repeatedly.

    The model must be built (a functional one is) and compiled without `loss` and `metrics`: it brings its own
    `compute_loss` and trackers. Logs must be scalars.

    Raises:
        ImportError: this version of Keras differs where the workaround applies.
    """
    try:
        build, reduce = trainer.TensorFlowTrainer._maybe_symbolic_build, trainer.reduce_per_replica
    except AttributeError as error:
        raise ImportError(
            f"the workaround for multi-worker training needs Keras 3.15, and this version differs: {error}"
        ) from None
    if getattr(reduce, "mended", False):
        return

    @functools.wraps(build)
    def build_without_a_batch(self, iterator=None, data_batch=None):
        if data_batch is not None or not _several_workers(self.distribute_strategy):
            return build(self, iterator=iterator, data_batch=data_batch)
        if not self.built or self._compile_metrics is not None or self._compile_loss is not None:
            raise ValueError(
                "under the multi-worker strategy a model must be built before `fit`, and compiled without `loss` and "
                "`metrics`: give it a `compute_loss` and metrics of its own"
            )
        with self.distribute_strategy.scope():
            self._symbolic_build()

    @functools.wraps(reduce)
    def mean_over_all_replicas(values, strategy, reduction):
        leaves = tree.flatten(values)
        if reduction not in ("auto", "mean") or not leaves or not _several_workers(strategy):
            return reduce(values, strategy, reduction)
        packed = strategy.run(lambda logs: tf.stack([tf.cast(v, tf.float32) for v in tree.flatten(logs)]), (values,))
        means = strategy.reduce(tf.distribute.ReduceOp.MEAN, packed, axis=None)
        return tree.pack_sequence_as(values, tf.unstack(means, num=len(leaves)))

    mean_over_all_replicas.mended = True  # type: ignore[attr-defined]
    trainer.TensorFlowTrainer._maybe_symbolic_build = build_without_a_batch
    trainer.reduce_per_replica = mean_over_all_replicas


def _several_workers(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and bool(
        strategy.cluster_resolver.cluster_spec()
    )


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


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Number of processes that train together: 1 under any strategy but the multi-worker one."""
    return strategy.extended._num_workers if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all have in common: checkpoints, logs, the progress bar."""
    return num_workers(strategy) == 1 or strategy.extended._is_chief


def from_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """Send a number, such as the step of the newest checkpoint, from the chief to every worker. All call it, and wait.

    With a constant this is a plain barrier.
    """
    if num_workers(strategy) == 1:
        return int(number)
    mine = tf.constant(int(number) if is_chief(strategy) else 0, tf.int64)
    return int(strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None))


@contextlib.contextmanager
def checkpoint_folder(strategy: tf.distribute.Strategy, folder: PathLike) -> Iterator[Path]:
    """The folder to save checkpoints into: the real one on the chief, one that vanishes on all others.

    All workers must save, at the same steps: variables that are summed when read (those of metrics) are read with all
    workers' help, and a chief that saves alone ends the training. All read from the real folder, which they share.
    """
    if is_chief(strategy):
        yield Path(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="retinaface-tf-not-chief-") as scratch:
            yield Path(scratch)


def is_lost_worker(error: BaseException) -> bool:
    """Whether a TensorFlow error is what a worker sees when another one is gone: bool."""
    kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    return isinstance(error, kinds) or "Collective ops is aborted" in str(error)


@contextlib.contextmanager
def lost_worker_is_one_line(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Context manager for training: if another worker stops, end this one with a one-line error.

    TensorFlow notices after 10 seconds that a worker sends no heartbeat, sooner that it was started again, and at once
    that the chief is gone; the process then needs about 10 seconds more to end. The ring can't be mended: all workers
    must be started again and go on from the last checkpoint. One that hangs but still sends heartbeats is not noticed:
    there is no limit on how long the others wait, since evaluating or saving on the chief may take long.

    Raises:
        ConnectionError: another worker is lost.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if num_workers(strategy) == 1 or not is_lost_worker(error):
            raise
        reason = error.message.partition("aborted by: ")[2].splitlines() or [error.message]
        raise ConnectionError(
            "another worker stopped. Start all workers again with the same command, and they resume "
            f"from the last checkpoint ({' '.join(reason[0].split())[:300]})"
        ) from None


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
            f"the multi-worker strategy must be made before TensorFlow runs its first operation ({error})"
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
        raise ValueError(f"no TPU found. Set TPU_NAME, or use a TensorFlow that is built for TPUs ({line})") from None
