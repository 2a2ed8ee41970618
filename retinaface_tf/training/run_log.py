"""What a training run tells: Keras' bar, two CSV tables, TensorBoard with pictures, and W&B where wanted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from retinaface_tf.common.files import atomic_write
from retinaface_tf.image.drawing import draw
from retinaface_tf.inference.detections import Detections
from retinaface_tf.training.average import averaged_weights

if TYPE_CHECKING:
    from retinaface_tf.training.progress import Position
    from retinaface_tf.training.table import Table


PICTURE_SIDE = 640  # pixels; larger photos are shrunk to it before they are shown


class FacesPerSecond(keras.callbacks.Callback):
    """Adds "faces_per_second", of the epoch so far, and "learning_rate" to the logs, and so to Keras' bar."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start, self._before = time.monotonic(), float(self.position.metrics.get("faces", 0))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras shows the mean over the devices, which of a sum is only a part of it.
        for name in ("faces", "skipped"):
            logs[name] = float(logs[name]) * self.model.distribute_strategy.num_replicas_in_sync
        self._add(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._add(logs)

    def _add(self, logs):
        faces = float(logs["faces"]) - self._before
        logs["faces_per_second"] = round(faces / max(time.monotonic() - self._start, 1e-9), 1)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class RunLog(keras.callbacks.Callback):
    """Rows of `steps.csv` and `log.csv`, and the same numbers in TensorBoard.

    Args:
        position: `Position`; comes after the callback that moves it on.
        steps_table, epochs_table: `Table`, keyed by "step" and "epoch".
        writer: TensorFlow summary writer.
        every: int, steps between two rows: means over the steps in between.
    """

    def __init__(self, position: Position, steps_table: Table, epochs_table: Table, writer: Any, every: int) -> None:
        super().__init__()
        self.position = position
        self.steps_table = steps_table
        self.epochs_table = epochs_table
        self.writer = writer
        self.every = every

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._done, self._means = self.position.step_in_epoch, self._losses(self.position.metrics)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.position.step_in_epoch or self.position.steps_per_epoch
        if self.position.step % self.every and done != self.position.steps_per_epoch:
            return
        # Keras' metrics are means since the epoch began; the row is of the steps since the last one.
        means = self._losses(logs)
        row = {
            name: (means[name] * done - self._means.get(name, 0) * self._done) / (done - self._done) for name in means
        }
        self._done, self._means = done, means
        row |= {name: logs[name] for name in ("learning_rate", "faces_per_second")}
        self.steps_table.add({"step": self.position.step, **row})
        self._scalars("step", row)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs_table.add({"epoch": epoch, "step": self.position.step, **logs})
        self._scalars("epoch", logs)

    def _losses(self, logs):
        return {name: float(logs[name]) for name in ("loss", *self.model.loss_names) if name in logs}

    def _scalars(self, group, values):
        with self.writer.as_default(step=self.position.step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", float(value))
        self.writer.flush()


class Pictures(keras.callbacks.Callback):
    """Some photos with what the model finds in them, in TensorBoard, after every `every` epochs and after the last.

    `kept` is a context manager of the model, in which it has the weights that are kept, as `averaged_weights`.
    """

    def __init__(
        self,
        photos: Any,
        writer: Any,
        every: int,
        position: Position,
        kept: Any = averaged_weights,
        epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.photos = [_shrunk(photo) for photo in photos]
        self.writer = writer
        self.every = every
        self.position = position
        self.kept = kept
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        with self.kept(self.model), self.writer.as_default(step=self.position.step):
            for number, photo in enumerate(self.photos):
                found = self.model.detect(photo, score_threshold=0.3, close_ups=False)
                picture = np.asarray(draw(photo, _surest(found, 100)))
                tf.summary.image(f"faces/{number}", picture[None])
        self.writer.flush()


class Validate(keras.callbacks.Callback):
    """Scores of the kept weights in the epoch's logs, and the best model on disk.

    Args:
        score: function of the model that returns a dict of floats.
        every: int, epochs between two scores.
        monitor: name of the score that makes a model the best; the higher the better, NaN is never the best.
        best: float, the best before a restart; -inf if there was none.
        save: function of the model, called when it is the best so far.
        kept: as for `Pictures`.
        epochs: int, those of the run, after whose last there is a score, too; or `None`.
    """

    def __init__(
        self,
        score: Callable[[keras.Model], dict[str, float]],
        every: int,
        monitor: str,
        best: float,
        save: Callable[[keras.Model], object],
        kept: Any = averaged_weights,
        epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.every = every
        self.monitor = monitor
        self.best = best
        self.save = save
        self.kept = kept
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        with self.kept(self.model):
            scores = self.score(self.model)
            logs.update(scores)
            if scores[self.monitor] > self.best:
                self.best = scores[self.monitor]
                self.save(self.model)


class WeightsAndBiases(keras.callbacks.Callback):
    """The epoch's logs on Weights & Biases, in one run however often it is restarted.

    Args:
        folder: path, of the run; its name is the run's. `wandb_id` in it tells it from others of that name.
        project: str.
        config: dict.

    Raises:
        ImportError: the extra `wandb` is not installed.
        ConnectionError: Weights & Biases does not take the run, such as without a login.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        super().__init__()
        try:
            import wandb
        except ImportError:
            raise ImportError("--wandb needs the extra: pip install 'retinaface-tf[wandb]'") from None
        kept = folder / "wandb_id"
        if not kept.is_file():
            with atomic_write(kept) as file:
                file.write(secrets.token_hex(8))
        options = {"name": folder.name, "id": kept.read_text("utf-8"), "dir": str(folder), "config": config}
        try:
            self.run = wandb.init(project=project, resume="allow", **options)
        except wandb.Error as error:
            raise ConnectionError(f"--wandb {project}: {error}") from None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.run.log({name: float(value) for name, value in logs.items()} | {"epoch": epoch})


def _shrunk(photo):
    from retinaface_tf.image.letterbox import letterbox

    side = max(photo.shape[:2])
    return photo if side <= PICTURE_SIDE else letterbox(photo, (0, 0, 0), (PICTURE_SIDE, PICTURE_SIDE)).canvas


def _surest(found, count):
    parts = (found.boxes[:count], found.scores[:count], found.landmarks[:count])
    return Detections(*parts, width=found.width, height=found.height)
