"""A mend for Keras, whose `fit` does not run under `tf.distribute.MultiWorkerMirroredStrategy`.

Seen with Keras 3.15.0 and TensorFlow 2.21.0; reported as keras-team/keras#20585, open since Keras 3.7. Two places of
`keras.src.backend.tensorflow.trainer` are wrong:

1. `_maybe_symbolic_build` takes a batch to build the model from and leaves it distributed, so that `fit` ends with
   "Attempt to convert a value (PerReplica…)". A model that is built, and whose losses and metrics are its own, needs no
   batch: here only the optimizer is built, without one.
2. `reduce_per_replica` averages the logs of a step along axis 0, which scalars do not have ("Invalid reduction
   dimension 0"). Here the mean is taken over all replicas of all workers, of all logs in one all-reduce.
   `MirroredStrategy` has the mean of its replicas, so the logs of a step mean the same under both, and every worker
   sees the same.

Neither touches the gradients, the variables or the data. Every other strategy gets Keras' own code. This file can go
when `tests/test_multi_worker.py::test_keras_still_needs_the_mend` fails: then `fit` runs without it.
"""

import functools

import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow import trainer


def mend_keras() -> None:
    """Make `model.fit` and `model.evaluate` run under `MultiWorkerMirroredStrategy`. Calling it again changes nothing.

    The model must be built (a functional one is) and compiled without `loss` and `metrics`: it brings its own
    `compute_loss` and trackers. Logs must be scalars.

    Raises:
        ImportError: this version of Keras has not the two places that are mended.
    """
    try:
        build, reduce = trainer.TensorFlowTrainer._maybe_symbolic_build, trainer.reduce_per_replica
    except AttributeError as error:
        raise ImportError(f"multi-worker training is mended for Keras 3.15 and this version differs: {error}") from None
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
