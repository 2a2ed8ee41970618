"""All that a training run needs to go on as if nothing had happened, on disk, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from retinaface_tf.common.types import PathLike
from retinaface_tf.training.workers import is_lost_worker

if TYPE_CHECKING:
    import keras


class NonFiniteError(ValueError):
    """Training ran into infinity or NaN; the message is one line for its user."""


def latest_checkpoint(folder: PathLike) -> str | None:
    """Path of the newest checkpoint in a folder, or `None`."""
    return tf.train.latest_checkpoint(str(folder))


class Checkpoints:
    """The last few checkpoints of a run: weights, optimiser with its averages, step, and the epoch's running metrics.

    TensorFlow writes a checkpoint's files first and names them in `checkpoint` last, by a rename; so a kill at any
    moment leaves the one before. Nothing is written while a weight is not finite.

    Args:
        folder: path.
        model: compiled, built `RetinaFace`; its optimiser is built here.
        keep: int. Older ones are deleted.
        read_from: path, if another: see `workers.checkpoint_folder`.
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
        """Go back to the newest checkpoint, if there is one.

        Returns:
            int: steps done; 0 without a checkpoint.

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
                f"{self.latest}: not a checkpoint of this model and optimiser ({_first_line(error)}): give another "
                "--output, or the options that it was made with"
            ) from None
        return int(self._step.numpy())

    def save(self, step: int) -> None:
        """Write a checkpoint.

        Args:
            step: int, steps done.

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
                f"{self.folder}: the checkpoint of step {step} can't be written ({_first_line(error)}). Free some "
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


def _by_name(variables, skip=0):
    """Variables under names that stay the same from run to run.

    The first `skip` parts of a path are left out: Keras numbers the optimizers of a process, such as `momentum_sgd_1`.
    """
    named = {".".join(variable.path.split("/")[skip:]): variable.value for variable in variables}
    if len(named) == len(variables):
        return named
    return {f"{number}": variable.value for number, variable in enumerate(variables)}


def _first_line(error):
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:160]
