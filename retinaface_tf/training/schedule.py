"""The learning rate, step by step: a linear warm-up, then steps, half a cosine, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf


KINDS = ("step", "cosine", "constant")


@keras.saving.register_keras_serializable("retinaface_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """From `warmup_rate` to `learning_rate` in `warmup_steps`, then by `kind`.

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
