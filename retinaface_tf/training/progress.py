"""What keeps a training run safe: its position, checkpoints in time, a stop when asked, an end when it goes wrong."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from retinaface_tf.training.checkpoint import NonFiniteError

if TYPE_CHECKING:
    from retinaface_tf.training.checkpoint import Checkpoints


class Interrupted(Exception):  # noqa: N818
    """No error: training was asked to stop by a signal, and has saved. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Position:
    """Where the run is: `step` counts from its very beginning, over every restart.

    Args:
        steps_per_epoch: int.
        step: int, steps done.

    Attributes:
        metrics: dict, the model's running metrics at the start of this epoch: not empty where it was interrupted.
    """

    def __init__(self, steps_per_epoch: int, step: int = 0) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.step = step
        self.metrics = {}

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def step_in_epoch(self) -> int:
        return self.step % self.steps_per_epoch


class StepCounter(keras.callbacks.Callback):
    """First of the callbacks: moves the position on, and ends a run whose loss is not finite or that learns nothing.

    Args:
        position: `Position`.
        checkpoints: `Checkpoints`, to say what is safe.
        batch_size: int, photos a step.
    """

    def __init__(self, position: Position, checkpoints: Checkpoints, batch_size: int) -> None:
        super().__init__()
        self.position = position
        self.checkpoints = checkpoints
        self.batch_size = batch_size

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.position.step += 1
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in step {self.position.step}; {self.checkpoints.describe_kept()}. Begin again "
                "in another --output with a lower schedule.learning_rate, a warm-up (schedule.warmup_epochs=1), or "
                "optimizer.clip_norm=10"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs["skipped"] >= self.position.steps_per_epoch * self.batch_size:
            raise ValueError(
                f"none of the photos of epoch {epoch} can be read: run the same `convert` command with --overwrite and "
                f"without --no-decode; {self.checkpoints.describe_kept()}"
            )


class SafeProgress(keras.callbacks.Callback):
    """Last of the callbacks: saves now and then, and when a signal asks the run to end.

    The rows of a step or an epoch are written by then: after a kill between the two, they are made again.

    Args:
        position: `Position`.
        checkpoints: `Checkpoints`.
        every: int, steps between two checkpoints; one more follows every epoch.
        signals: bool. Whether SIGINT and SIGTERM save first. Not with several workers, who can only save together.
    """

    def __init__(self, position: Position, checkpoints: Checkpoints, every: int, signals: bool = True) -> None:
        super().__init__()
        self.position = position
        self.checkpoints = checkpoints
        self.every = every
        self.signals = signals
        self._signal = None
        self._handlers = {}

    def __enter__(self) -> Self:
        if self.signals and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.position.step_in_epoch:
            return  # the epoch's rows come before its checkpoint
        if self._signal is not None:
            self.checkpoints.save(self.position.step)
            raise Interrupted(self._signal)
        if self.position.step % self.every == 0:
            self.checkpoints.save(self.position.step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.checkpoints.save(self.position.step)
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _note(self, number, frame):
        if self._signal is not None:
            raise KeyboardInterrupt  # asked twice: at once
        self._signal = number


class RestoredMetrics(keras.callbacks.Callback):
    """Puts the running metrics of an interrupted epoch back, once, after `fit` has set them to 0.

    With several workers all must make it and call it at the same time: reading a metric adds up theirs.
    """

    def __init__(self, model: keras.Model, position: Position) -> None:
        super().__init__()
        self.position = position
        self._values = [(variable, variable.numpy()) for metric in model.metrics for variable in metric.variables]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for variable, value in self._values:
            variable.assign(value)
        self.position.metrics = self.model.get_metrics_result() if self._values else {}
        self._values = []
