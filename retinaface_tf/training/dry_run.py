"""Dry run: check the data, and measure time and memory of a training step, without writing files."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from retinaface_tf.common.types import PathLike
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import shard_errors, training_dataset
from retinaface_tf.dense.label3d import require_labels
from retinaface_tf.training.batch_norm import freeze
from retinaface_tf.training.build import build_model, compile_model, needs_vertex_labels
from retinaface_tf.training.strategy import distribute, make_strategy
from retinaface_tf.training.trainer import batch_options, check_for_several_devices, open_data, validate_every
from retinaface_tf.training.validation import Validation

if TYPE_CHECKING:
    from retinaface_tf.training.config import TrainConfig


def dry_run(
    config: TrainConfig,
    data: Sequence[PathLike],
    *,
    validation: Validation | None = None,
    strategy: str = "auto",
    steps: int = 3,
) -> dict[str, Any]:
    """Check data and configuration with a few training steps, without saving anything.

    Args:
        config, data, validation, strategy: as for `train`.
        steps: int, steps that are timed, after the first, in which the graph is built.

    Returns:
        dict of "photos", "faces", "epochs", "steps_per_epoch", "first_step_seconds", "step_seconds",
        "validation_seconds" (of all of them, or `None`), "total_seconds" and "peak_memory_mb" (`None` on Windows).
    """
    paths, num_photos, _ = open_data(data)
    steps_per_epoch = config.steps_per_epoch or max(1, num_photos // config.data.batch_size)
    strategy = make_strategy(strategy)
    if strategy.num_replicas_in_sync > 1:
        check_for_several_devices(config)
    keras.utils.set_random_seed(config.seed)
    with shard_errors(paths), strategy.scope():
        model = build_model(config)
        if model.topology is not None and needs_vertex_labels(model):
            require_labels(paths, model.topology)
        freeze(model, config.freeze.batch_norm, config.freeze.body_stages, config.freeze.detector)
        compile_model(model, config, steps_per_epoch)
    timer = _StepTimer()

    def make_dataset(worker, num_workers):
        options = batch_options(config, model, 0)
        return training_dataset(paths, num_photos, worker=worker, num_workers=num_workers, **options)

    with shard_errors(paths):
        batches = distribute(strategy, make_dataset)
        model.fit(batches, epochs=1, steps_per_epoch=1 + steps, callbacks=[timer], shuffle=False, verbose=0)
    step_seconds = sum(timer.seconds[1:]) / steps
    validation_seconds = None
    if validation:
        name = next(iter(validation.photos))
        some = Validation({name: validation.photos[name]}, validation.annotations, validation.protocol, check=False)
        some(model)
        start = time.monotonic()
        some(model)
        times = math.ceil(config.epochs / validate_every(config, validation)) + 1
        validation_seconds = (time.monotonic() - start) * len(validation.photos) * times
    return {
        "photos": num_photos,
        "faces": sum(open_shards(folder)[0]["counts"]["faces"] for folder in data),
        "epochs": config.epochs,
        "steps_per_epoch": steps_per_epoch,
        "first_step_seconds": round(timer.seconds[0], 2),
        "step_seconds": round(step_seconds, 3),
        "validation_seconds": None if validation_seconds is None else round(validation_seconds, 1),
        "total_seconds": round(
            timer.seconds[0] + step_seconds * config.epochs * steps_per_epoch + (validation_seconds or 0), 1
        ),
        "peak_memory_mb": _peak_memory_mb(),
    }


class _StepTimer(keras.callbacks.Callback):
    """Seconds of each step."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_begin(self, logs=None):
        self._start = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # the step has been computed by now
        now = time.monotonic()
        self.seconds.append(now - self._start)
        self._start = now


def _peak_memory_mb():
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
