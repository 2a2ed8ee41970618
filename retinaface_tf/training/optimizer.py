"""SGD as PyTorch writes it, its learning-rate schedule, and the EMA weights that it keeps.

With PyTorch's formula, published recipes mean here what they meant there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

KINDS = ("step", "cosine", "constant")


class GlobalGradients:
    """Clip the gradient of the whole batch, as one device does, and not the part of each replica.

    A mixin: `class GlobalSGD(GlobalGradients, keras.optimizers.SGD)`.

    Keras 3.15 clips before it sums over the replicas, so that with `clipnorm`, `clipvalue` or `global_clipnorm` the
    result depends on their number. Here the gradients are summed first; all that follows sees the same numbers on every
    replica. Without clipping, and with one replica, nothing changes.

    Not for `gradient_accumulation_steps` nor inside a `LossScaleOptimizer`: both update within a condition, where
    TensorFlow allows no reduction under `MirroredStrategy` and `MultiWorkerMirroredStrategy`, whatever the optimizer.
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


@keras.saving.register_keras_serializable("retinaface_tf")
class MomentumSGD(GlobalGradients, keras.optimizers.SGD):
    """`v = momentum * v + (g + decay * w)`, `w = w - rate * v`.

    `keras.optimizers.SGD` keeps the rate inside the velocity and knows decoupled decay only: with a schedule, or the
    published recipes' L2 decay, it takes other steps. Two more things here are as they would be in one step:
    with `gradient_accumulation_steps` the schedule counts updates, and an update enters the average (EMA) once, where
    Keras does both with every batch.

    Args:
        learning_rate, momentum, nesterov, and all of `keras.optimizers.SGD`.
        coupled_decay: float. L2 decay that passes through the momentum, on every variable as in PyTorch.
            `weight_decay` is the decoupled kind: `w = w - rate * weight_decay * w`, beside the step.
    """

    def __init__(
        self, learning_rate: float = 1e-3, momentum: float = 0.9, coupled_decay: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.coupled_decay = coupled_decay

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype) + self.coupled_decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            new_velocity = self.momentum * ops.convert_to_tensor(velocity) + step
            self.assign(velocity, new_velocity)
            step = step + self.momentum * new_velocity if self.nesterov else new_velocity
        self.assign_sub(variable, rate * step)

    def _get_current_learning_rate(self):
        rate = self._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables):
        count = self.gradient_accumulation_steps
        if not count:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        updated = (ops.convert_to_tensor(self._iterations) + 1) % count == 0
        part = ops.where(self.iterations > 0, 1 - self.ema_momentum, 1.0)  # all of the first
        part = ops.where(updated, part, 0.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                change = ops.convert_to_tensor(variable) - ops.convert_to_tensor(average)
                average.assign(ops.convert_to_tensor(average) + ops.cast(part, variable.dtype) * change)

    def finalize_variable_values(self, trainable_variables: Any) -> None:
        """Nothing: `fit` would replace the weights by their averages here, even if training continues."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coupled_decay": self.coupled_decay}


@keras.saving.register_keras_serializable("retinaface_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate: a linear warm-up from `warmup_rate` to `learning_rate`, then a schedule by `kind`.

    Args:
        learning_rate: float.
        kind: "step": times `decay_factor` at each of `decay_steps`; "cosine": half a cosine to `final_rate` at
            `total_steps` (arXiv 1608.03983); "constant".
        total_steps: int, the warm-up included.
        warmup_steps: int.
        warmup_rate: float, at step 0.
        decay_steps: tuple of int.
        decay_factor: float.
        final_rate: float.
    """

    def __init__(
        self,
        learning_rate: float,
        kind: str = "step",
        total_steps: int = 1,
        warmup_steps: int = 0,
        warmup_rate: float = 0.0,
        decay_steps: Sequence[int] = (),
        decay_factor: float = 0.1,
        final_rate: float = 0.0,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"`kind` must be one of {list(KINDS)}. Received: kind={kind!r}")
        self.learning_rate = learning_rate
        self.kind = kind
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.warmup_rate = warmup_rate
        self.decay_steps = tuple(decay_steps)
        self.decay_factor = decay_factor
        self.final_rate = final_rate

    def __call__(self, step: Any) -> tf.Tensor:
        step = ops.cast(step, "float32")
        rate = self._decayed(step)
        if not self.warmup_steps:
            return rate
        part = step / self.warmup_steps
        warm = self.warmup_rate + (self.learning_rate - self.warmup_rate) * part
        return ops.where(step < self.warmup_steps, warm, rate)

    def _decayed(self, step):
        if self.kind == "step":
            passed = sum(ops.cast(step >= at, "float32") for at in self.decay_steps) if self.decay_steps else 0.0
            return self.learning_rate * ops.power(self.decay_factor, ops.cast(passed, "float32"))
        if self.kind == "cosine":
            length = max(1, self.total_steps - self.warmup_steps)
            part = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
            return self.final_rate + (self.learning_rate - self.final_rate) * 0.5 * (1 + ops.cos(math.pi * part))
        return ops.cast(self.learning_rate, "float32") + 0.0 * step

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "decay_steps": list(self.decay_steps)}


def ema_pairs(optimizer: Any) -> list[tuple[keras.Variable, keras.Variable]]:
    """Pairs (variable, its moving average) that a Keras optimizer keeps with `use_ema`: list, empty without."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16 wraps it for loss scaling
    if not getattr(optimizer, "use_ema", False):
        return []
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


@contextmanager
def ema_weights(
    model: keras.Model, start: Sequence[np.ndarray] | None = None, blend: float = 1.0
) -> Iterator[keras.Model]:
    """Put the EMA weights into the model for the block, and afterwards the very same bits as before.

    Without EMA the current weights stay. With `start` they are blended with the weights before the run: on the line
    between old and new weights often lies a model that is nearly as good as the new one on the new data, and nearly as
    good as the old one on the old (WiSE-FT, arXiv 2109.01903).

    (`keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds: a run that looks at its EMA weights
    would train on other weights than one that does not.)

    Args:
        start: list of arrays as `model.get_weights()` gave them before the run, or `None`.
        blend: float in (0, 1]: part of the new weights; statistics of batch normalization are blended like all others.
    """
    current = model.get_weights() if start else None
    pairs = ema_pairs(model.optimizer)
    before = [variable.numpy() for variable, _ in pairs]
    if pairs and model.optimizer.iterations.numpy() > 0:
        for variable, average in pairs:
            variable.assign(average.numpy())
    if start:
        new = model.get_weights()
        model.set_weights([blend * ours + (1 - blend) * old for ours, old in zip(new, start, strict=True)])
    try:
        yield model
    finally:
        if start:
            model.set_weights(current)
        for (variable, _), value in zip(pairs, before, strict=True):
            variable.assign(value)
