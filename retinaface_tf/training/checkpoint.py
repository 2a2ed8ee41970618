"""Checkpoints of a training run, and the callbacks that write them, stop on a signal, and end a run that fails."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from retinaface_tf.common.text import one_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.training.strategy import is_lost_worker


class NonFiniteError(ValueError):
    """A loss or weight became infinite or NaN; the message is one line."""


def latest_checkpoint(folder: PathLike) -> str | None:
    """Path of the newest checkpoint in a folder, or `None`."""
    return tf.train.latest_checkpoint(str(folder))


class Checkpoints:
    """The last `keep` checkpoints of a run: weights, optimizer with its averages, step, and the epoch's metrics.

    TensorFlow writes a checkpoint's files first and names them in `checkpoint` last, by a rename; so a kill at any
    moment leaves the one before. Nothing is written while a weight is not finite. The model is compiled and built; its
    optimizer is built here. `read_from` is another folder to read from, see `strategy.checkpoint_folder`.
    """

    def __init__(self, folder: PathLike, model: keras.Model, keep: int = 2, read_from: PathLike | None = None) -> None:
        self.folder = Path(folder)
        self._read_from = Path(read_from or folder)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._weights = [variable.value for variable in model.variables]
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        metrics = [variable for metric in model.metrics for variable in metric.variables]
        self._checkpoint = tf.train.Checkpoint(
            step=self._step,
            weights=_by_name(model.variables),
            optimizer=_by_name(model.optimizer.variables, skip=1),
            metrics=_by_name(metrics),
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self.folder), max_to_keep=keep, checkpoint_name="step"
        )
        for path in self.folder.glob("step-*_temp"):  # a killed run's; a checkpoint is never named so
            shutil.rmtree(path, ignore_errors=True)
        self._finite = tf.function(self._all_finite, autograph=False)

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, or `None`."""
        return self._manager.latest_checkpoint or latest_checkpoint(self._read_from)

    def restore(self) -> int:
        """Restore the newest checkpoint, if there is one, and return the steps done; 0 without.

        Raises:
            OSError: it can't be read, or is of another model.
        """
        if self.latest is None:
            return 0
        status = None
        try:
            status = self._checkpoint.restore(self.latest)
            status.assert_consumed()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:  # IndexError: it ends too early
            if status is not None:
                status.expect_partial()  # else TensorFlow prints a line for every variable when it goes
            raise OSError(
                f"{self.latest}: not a checkpoint of this model and optimizer ({_reason(error)}): give another "
                "--output, or the options that it was made with"
            ) from None
        return int(self._step.numpy())

    def save(self, step: int) -> None:
        """Write a checkpoint after `step` steps.

        Raises:
            NonFiniteError: a weight is infinite or NaN; nothing is written.
            OSError: it can't be written, such as on a full disk; the one before is untouched.
        """
        if not bool(self._finite()):
            raise NonFiniteError(f"a weight became infinite or NaN by step {step}; {self.describe_kept()}")
        self._step.assign(step)
        try:
            self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            self._remove_partial()
            if is_lost_worker(error):
                raise  # no matter of the disk: saving reads the metrics of all workers
            raise OSError(
                f"{self.folder}: the checkpoint of step {step} can't be written ({_reason(error)}). Free some "
                f"space and run the same command again; {self.describe_kept()}"
            ) from None

    def describe_kept(self) -> str:
        """Part of a sentence that says what is safe."""
        return f"the last good weights are kept in {self.latest}" if self.latest else "there is no checkpoint yet"

    def _all_finite(self):
        sums = [tf.reduce_sum(tf.cast(weight, tf.float32) * 0.0) for weight in self._weights]
        return tf.reduce_all(tf.math.is_finite(tf.stack(sums)))

    def _remove_partial(self):
        kept = {Path(path).name for path in self._manager.checkpoints}
        for path in self.folder.glob("step-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.split(".")[0] not in kept:
                path.unlink(missing_ok=True)


class Interrupted(Exception):  # noqa: N818
    """A signal stopped training after a checkpoint was saved. `number` is the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class TrainState:
    """Progress of a run: `step` counts from its very beginning, over every restart.

    `metrics` are the model's running metrics at the start of this epoch: not empty where it was interrupted.
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
    """First of the callbacks: moves the position on, and ends a run whose loss is not finite or that learns nothing."""

    def __init__(self, state: TrainState, checkpoints: Checkpoints, batch_size: int) -> None:
        super().__init__()
        self.state = state
        self.checkpoints = checkpoints
        self.batch_size = batch_size

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.state.step += 1
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in step {self.state.step}; {self.checkpoints.describe_kept()}. Begin again "
                "in another --output with a lower schedule.learning_rate, a warm-up (schedule.warmup_epochs=1), or "
                "optimizer.clip_norm=10"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs["skipped"] >= self.state.steps_per_epoch * self.batch_size:
            raise ValueError(
                f"none of the photos of epoch {epoch + 1} can be read: run the same `convert` command with --overwrite "
                f"and without --no-decode; {self.checkpoints.describe_kept()}"
            )


class SafeProgress(keras.callbacks.Callback):
    """Last of the callbacks: saves every `every` steps, after every epoch, and when a signal asks the run to end.

    The rows of a step or an epoch are written by then: after a kill between the two, they are made again. With
    `signals`, SIGINT, SIGTERM and SIGHUP save first: not with several workers, who can only save together.
    """

    def __init__(self, state: TrainState, checkpoints: Checkpoints, every: int, signals: bool = True) -> None:
        super().__init__()
        self.state = state
        self.checkpoints = checkpoints
        self.every = every
        self.signals = signals
        self._signal = None
        self._handlers = {}

    def __enter__(self) -> Self:
        if self.signals and threading.current_thread() is threading.main_thread():
            for word in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
                if number := getattr(signal, word, None):
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.state.step_in_epoch:
            return  # the epoch's rows come before its checkpoint
        if self._signal is not None:
            self.checkpoints.save(self.state.step)
            raise Interrupted(self._signal)
        if self.state.step % self.every == 0:
            self.checkpoints.save(self.state.step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.checkpoints.save(self.state.step)
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

    def __init__(self, model: keras.Model, state: TrainState) -> None:
        super().__init__()
        self.state = state
        self._values = [(variable, variable.numpy()) for metric in model.metrics for variable in metric.variables]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for variable, value in self._values:
            variable.assign(value)
        self.state.metrics = self.model.get_metrics_result() if self._values else {}
        self._values = []


def _by_name(variables, skip=0):
    """Variables under names that stay the same from run to run.

    The first `skip` parts of a path are left out: Keras numbers the optimizers of a process, such as `momentum_sgd_1`.
    """
    named = {".".join(variable.path.split("/")[skip:]): variable.value for variable in variables}
    if len(named) == len(variables):
        return named
    return {f"{number}": variable.value for number, variable in enumerate(variables)}


def _reason(error):
    return one_line(getattr(error, "message", None) or str(error) or type(error).__name__, 160)
