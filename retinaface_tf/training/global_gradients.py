"""Clip the gradient of the whole batch, as one device does, and not the part of each replica."""

from typing import Any

import tensorflow as tf


class GlobalGradients:
    """To put in front of a Keras optimiser: `class GlobalSGD(GlobalGradients, keras.optimizers.SGD)`.

    Keras 3.15 clips before it sums over the replicas, so that with `clipnorm`, `clipvalue` or `global_clipnorm` the
    result depends on their number. Here the gradients are summed first; all that follows sees the same numbers on every
    replica. Without clipping, and with one replica, nothing changes.

    Not for `gradient_accumulation_steps` nor inside a `LossScaleOptimizer`: both update within a condition, where
    TensorFlow allows no reduction under `MirroredStrategy` and `MultiWorkerMirroredStrategy`, whatever the optimiser.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return super().apply(grads, trainable_variables)  # type: ignore[misc]
        # Weights that the loss does not depend on have no gradient, on any replica.
        present = [grad for grad in grads if grad is not None]
        reduced = iter(replica.all_reduce(tf.distribute.ReduceOp.SUM, present) if present else ())
        return super().apply([grad if grad is None else next(reduced) for grad in grads], trainable_variables)  # type: ignore[misc]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars
