"""Callbacks that report a training run: CSV tables, TensorBoard with images, validation, Weights & Biases."""

from __future__ import annotations

import csv
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.types import PathLike
from retinaface_tf.image.drawing import draw
from retinaface_tf.training.optimizer import ema_weights

if TYPE_CHECKING:
    from retinaface_tf.training.checkpoint import TrainState


MAX_COLUMNS = 100  # of the progress bar
IMAGE_SIDE = 640  # pixels; larger photos are shrunk to it before they are shown


class CsvLog:
    """A CSV file of rows that a restarted run continues: rows whose `key` is not below `before` are removed.

    `key` is a column that grows from row to row.
    """

    def __init__(self, path: PathLike, key: str, before: float) -> None:
        self.path = Path(path)
        self.rows = []
        if self.path.is_file():
            text = self.path.read_text("utf-8", errors="replace")
            lines = text[: text.rfind("\n") + 1].splitlines()  # a killed run may leave half a line
            self.rows = [row for row in csv.DictReader(lines) if _whole(row, key) and int(row[key]) < before]
            self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row: a dict of str or numbers."""
        new_columns = set(row) - set(self._columns())
        self.rows.append({name: _text(value) for name, value in row.items()})
        if new_columns or len(self.rows) == 1:
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns(), lineterminator="\n").writerow(self.rows[-1])

    def _columns(self):
        """Those of all rows: the first need not have all, such as scores that come every few epochs."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write(self):
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, self._columns(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class FacesPerSecond(keras.callbacks.Callback):
    """Adds "faces_per_second", of the epoch so far, and "learning_rate" to the logs; "seconds" to those of an epoch."""

    def __init__(self, state: TrainState) -> None:
        super().__init__()
        self.state = state

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start, self._before = time.monotonic(), float(self.state.metrics.get("faces", 0))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras shows the mean over the devices, which of a sum is only a part of it.
        for name in ("faces", "skipped"):
            logs[name] = float(logs[name]) * self.model.distribute_strategy.num_replicas_in_sync
        self._add(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._add(logs)
        logs["seconds"] = round(time.monotonic() - self._start, 1)

    def _add(self, logs):
        faces = float(logs["faces"]) - self._before
        logs["faces_per_second"] = round(faces / max(time.monotonic() - self._start, 1e-9), 1)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class LogMetrics(keras.callbacks.Callback):
    """Rows of `steps.csv` (every `every` steps, means over those in between) and `log.csv`; the same in TensorBoard.

    Comes after the callback that moves `state` on.
    """

    def __init__(self, state: TrainState, steps_table: CsvLog, epochs_table: CsvLog, writer: Any, every: int) -> None:
        super().__init__()
        self.state = state
        self.steps_table = steps_table
        self.epochs_table = epochs_table
        self.writer = writer
        self.every = every

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._done, self._means = self.state.step_in_epoch, self._losses(self.state.metrics)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.state.step_in_epoch or self.state.steps_per_epoch
        if self.state.step % self.every and done != self.state.steps_per_epoch:
            return
        # Keras' metrics are means since the epoch began; the row is of the steps since the last one.
        means = self._losses(logs)
        row = {
            name: (means[name] * done - self._means.get(name, 0) * self._done) / (done - self._done) for name in means
        }
        self._done, self._means = done, means
        row |= {name: logs[name] for name in ("learning_rate", "faces_per_second")}
        self.steps_table.add({"step": self.state.step, **row})
        self._scalars("step", row)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs_table.add({"epoch": epoch + 1, "step": self.state.step, **logs})
        self._scalars("epoch", logs)

    def _losses(self, logs):
        return {name: float(logs[name]) for name in ("loss", *self.model.loss_names) if name in logs}

    def _scalars(self, group, values):
        with self.writer.as_default(step=self.state.step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", float(value))
        self.writer.flush()


class LogImages(keras.callbacks.Callback):
    """Some photos with what the model finds in them, in TensorBoard, after every `every` epochs and after the last.

    `kept` is a context manager of the model, in which it has the weights that are kept, as `ema_weights`.
    """

    def __init__(
        self,
        photos: Any,
        writer: Any,
        every: int,
        state: TrainState,
        kept: Any = ema_weights,
        epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.photos = [_shrunk(photo) for photo in photos]
        self.writer = writer
        self.every = every
        self.state = state
        self.kept = kept
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        with self.kept(self.model), self.writer.as_default(step=self.state.step):
            for number, photo in enumerate(self.photos):
                found = self.model.detect(photo, score_threshold=0.3, max_detections=100, resize=None, close_ups=False)
                picture = np.asarray(draw(photo, found))
                tf.summary.image(f"faces/{number}", picture[None])
        self.writer.flush()


class PeriodicEval(keras.callbacks.Callback):
    """Validate the model, keep the best one on disk, and stop early.

    Args:
        score: function of the model that returns a dict of floats.
        every: int, epochs between two scores.
        monitor: name of the score that makes a model the best; the higher the better, NaN is never the best.
        best: float, the best before a restart; -inf if there was none.
        save: function of the model, called when it is the best so far.
        kept: as for `LogImages`.
        epochs: int, those of the run, after whose last there is a score, too; or `None`.
        best_epoch: int, the epoch of `best`, counted from 1; 0 for none.
        patience: int, epochs without a better score after which training stops; or `None`.
    """

    def __init__(
        self,
        score: Callable[[keras.Model], dict[str, float]],
        every: int,
        monitor: str,
        best: float,
        save: Callable[[keras.Model], object],
        kept: Any = ema_weights,
        epochs: int | None = None,
        best_epoch: int = 0,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.every = every
        self.monitor = monitor
        self.best = best
        self.save = save
        self.kept = kept
        self.epochs = epochs
        self.best_epoch = best_epoch
        self.patience = patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        with self.kept(self.model):
            scores = self.score(self.model)
            logs.update(scores)
            if scores[self.monitor] > self.best:
                self.best, self.best_epoch = scores[self.monitor], epoch + 1
                self.save(self.model)
        if self.is_over(epoch + 1):
            self.model.stop_training = True

    def is_over(self, epoch: int) -> bool:
        """Whether the run ends early after this epoch, counted from 1."""
        return self.patience is not None and epoch - self.best_epoch >= self.patience


class ProgressBar(keras.callbacks.Callback):
    """Progress on standard error: a bar of at most 100 columns on a terminal, and a line for each epoch.

    Comes after the callbacks that move `state` on and add to the logs.
    """

    def __init__(self, state: TrainState, epochs: int) -> None:
        super().__init__()
        self.state = state
        self.epochs = epochs
        self._bar: Any = None
        self._first = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.monotonic()
        if self._first:
            self._first = False
            _tell("building the training step: the first step takes up to some minutes, the others do not")
        columns = min(MAX_COLUMNS, shutil.get_terminal_size((MAX_COLUMNS, 24)).columns)
        self._bar = tqdm(
            total=self.state.steps_per_epoch,
            initial=self.state.step_in_epoch,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            ncols=columns,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}",
            leave=False,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._bar.set_postfix_str(format_losses(logs, self.model.loss_names), refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.close()
        scores = [f"{name} {value:.3f}" for name, value in logs.items() if name.startswith("val_")]
        faces = f"{int(logs['faces']):,} faces in {time.monotonic() - self._start:.0f} s"
        parts = [format_losses(logs, self.model.loss_names), *scores, faces]
        _tell(f"epoch {epoch + 1}/{self.epochs}: {', '.join(parts)}")

    def close(self) -> None:
        """Take the bar away, for whatever is printed next."""
        if self._bar is not None:
            self._bar.close()


def format_losses(logs: Mapping[str, float], names: Sequence[str]) -> str:
    """The loss and its parts, such as "loss 12.3, face 4.1", and the number of images left out, if there are any."""
    parts = [f"{name} {float(logs[name]):.3g}" for name in ("loss", *names) if name in logs]
    skipped = int(logs.get("skipped", 0))
    return ", ".join(parts + ([f"{skipped} photos left out"] if skipped else []))


def _tell(line):
    tqdm.write(line, file=sys.stderr)


class WeightsAndBiases(keras.callbacks.Callback):
    """The epoch's logs on Weights & Biases, in one run however often it is restarted.

    The run is named like its folder; `wandb_id` in it tells it from others of that name.

    Raises:
        ImportError: the extra `wandb` is not installed.
        ConnectionError: Weights & Biases does not take the run, such as without a login.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        super().__init__()
        try:
            import wandb
        except ImportError:
            raise ImportError(f"--wandb needs the extra: {install_hint('wandb')}") from None
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
        self.run.log({name: float(value) for name, value in logs.items()} | {"epoch": epoch + 1})


def _shrunk(photo):
    from retinaface_tf.image.letterbox import letterbox

    side = max(photo.shape[:2])
    return photo if side <= IMAGE_SIDE else letterbox(photo, (0, 0, 0), (IMAGE_SIDE, IMAGE_SIDE)).canvas


def _text(value):
    return f"{float(value):.7g}" if isinstance(value, (float, np.floating)) or hasattr(value, "numpy") else str(value)


def _whole(row, key):
    """Whether all columns are there, and the key is a number."""
    return None not in row and None not in row.values() and row.get(key, "").isdecimal()
