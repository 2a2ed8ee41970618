"""Train a detector: shards to weights."""

import dataclasses
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from retinaface_tf.common.files import atomic_write, require_writable, save_model
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.contact_sheet import read_photos
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import shard_errors, training_dataset
from retinaface_tf.dense.label3d import require_labels
from retinaface_tf.dense.vertex_labels import vertex_fields
from retinaface_tf.training.batch_norm import calibrate, freeze, is_uncalibrated, synchronize_batch_norm
from retinaface_tf.training.build import build_model, compile_model, for_detection, needs_vertex_labels
from retinaface_tf.training.callbacks import (
    CsvLog,
    FacesPerSecond,
    LogImages,
    LogMetrics,
    PeriodicEval,
    WeightsAndBiases,
)
from retinaface_tf.training.checkpoint import (
    Checkpoints,
    RestoredMetrics,
    SafeProgress,
    StepCounter,
    TrainState,
    latest_checkpoint,
)
from retinaface_tf.training.config import TrainConfig, differences, override, to_dict
from retinaface_tf.training.optimizer import ema_weights
from retinaface_tf.training.strategy import (
    checkpoint_folder,
    distribute,
    from_chief,
    is_chief,
    lost_worker_is_one_line,
    make_strategy,
    num_workers,
)

CONFIG_FILE, MODEL_FILE, BEST_FILE = "config.json", "model.keras", "best.keras"
START_FILE = "start.npz"  # with blend alone
IMAGES = 4


def train(
    config: TrainConfig,
    data: Sequence[PathLike],
    output: PathLike,
    *,
    strategy: str = "auto",
    score: Callable[[keras.Model], dict[str, float]] | None = None,
    monitor: str | None = None,
    wandb: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Path:
    """Train a detector, or go on with a run that was interrupted: the same call resumes from its last checkpoint.

    Args:
        config: `TrainConfig`.
        data: list of folders that `retinaface-tf convert` wrote.
        output: folder of the run: `config.json`, `checkpoints/`, `log.csv` (a row an epoch), `steps.csv`,
            `tensorboard/`, `model.keras` (the averaged weights after the last epoch) and, with `score`, `best.keras`.
        strategy: name, see `make_strategy`.
        score: function of the model that returns a dict of floats, called each `config.validate_every` epochs and
            after the last.
        monitor: name of the score that decides which model is the best; needed with `score`.
        wandb: project on Weights & Biases, or `None`.
        callbacks: further Keras callbacks.
        verbose: as in `fit`.

    Returns:
        Path of `model.keras`.

    Raises:
        ValueError: a value that can't be used; data without a photo or a face; a loss or weight that is not finite.
        OSError: data or output that can't be read or written.
        Interrupted: stopped by a signal, after a checkpoint.
    """
    if score and not monitor:
        raise ValueError("`score` needs `monitor`: the name of the score that decides which model is the best")
    output = Path(output)
    require_writable(output / CONFIG_FILE)
    paths, num_photos, digest = _open_data(data)
    steps_per_epoch = config.steps_per_epoch or max(1, num_photos // config.data.batch_size)

    strategy = make_strategy(strategy)
    if strategy.num_replicas_in_sync > 1:
        _check_for_several_devices(config)
    chief = is_chief(strategy)
    if chief:
        _keep_config(output, config, data, digest)
    with (
        lost_worker_is_one_line(strategy),
        checkpoint_folder(strategy, output / "checkpoints") as folder,
        shard_errors(paths),
    ):
        model, checkpoints = _start(config, strategy, paths, num_photos, steps_per_epoch, output, folder)
        state = TrainState(steps_per_epoch, step=checkpoints.restore())
        if from_chief(strategy, state.step) != state.step:
            raise OSError(f"{output}: the workers see different checkpoints: expected a folder that all of them share")
        if verbose and chief and state.step:
            print(f"going on from step {state.step} ({checkpoints.latest})")

        def make_dataset(worker, num_workers):
            options = _batch_options(config, model, state.step)
            return training_dataset(paths, num_photos, worker=worker, num_workers=num_workers, **options)

        every = [StepCounter(state, checkpoints, config.data.batch_size), FacesPerSecond(state), *callbacks]
        if state.step_in_epoch:
            every.insert(0, RestoredMetrics(model, state))
        kept = _kept_weights(config, model, output, checkpoints)
        logs = _logs(output, config, state, paths, num_photos, score, monitor, wandb, kept) if chief else []
        with SafeProgress(state, checkpoints, config.checkpoint_steps, signals=num_workers(strategy) == 1) as safe:
            while state.step < config.epochs * steps_per_epoch:
                # An interrupted epoch first, then all others: within one `fit` all epochs are equally long.
                rest = steps_per_epoch - state.step_in_epoch
                model.fit(
                    distribute(strategy, make_dataset),
                    initial_epoch=state.epoch,
                    epochs=config.epochs if rest == steps_per_epoch else state.epoch + 1,
                    steps_per_epoch=rest,
                    callbacks=[*every, *logs, safe],
                    shuffle=False,
                    verbose=verbose if chief else 0,
                )
    if chief:
        with kept(model):
            save_model(for_detection(model), output / MODEL_FILE)
    return output / MODEL_FILE


def _start(config, strategy, paths, num_photos, steps_per_epoch, output, folder):
    """The model, ready for `fit`, and its checkpoints."""
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(config)
        if model.topology is not None and needs_vertex_labels(model):
            require_labels(paths, model.topology)
        first = not latest_checkpoint(output / "checkpoints")
        if first and config.freeze.calibrate:
            dataset = training_dataset(paths, num_photos, **_batch_options(config, model, 0))
            calibrate(model, (images for images, _ in dataset.take(config.freeze.calibrate)))
        elif first and _needs_calibration(config, model) and is_chief(strategy):
            line = f"{config.weights} has its batch normalisation folded away: training needs --set freeze.calibrate=8"
            print(line, file=sys.stderr)
        freeze(model, config.freeze.batch_norm, config.freeze.body_stages, config.freeze.detector)
        if config.sync_batch_norm:
            synchronize_batch_norm(model)
        compile_model(model, config, steps_per_epoch)
        return model, Checkpoints(folder, model, config.keep_checkpoints, read_from=output / "checkpoints")


def _needs_calibration(config, model):
    return config.weights and not config.freeze.detector and is_uncalibrated(model)


def _kept_weights(config, model, output, checkpoints):
    """`ema_weights` of this run: with `blend` below 1 it needs the weights before the first step."""
    if config.blend == 1:
        return ema_weights
    path = output / START_FILE
    if checkpoints.latest is None:
        with atomic_write(path, "wb") as file:
            np.savez(file, *model.get_weights())
    try:
        with np.load(path) as arrays:
            start = [arrays[name] for name in arrays.files]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(f"{path}: blend={config.blend} needs the weights that the run began with ({error})") from None
    return partial(ema_weights, start=start, blend=config.blend)


def _check_for_several_devices(config):
    # Keras puts both into a condition, in which TensorFlow allows no sum over devices.
    if config.optimizer.accumulate > 1:
        raise ValueError("optimizer.accumulate works on one device only: with several, give a smaller data.batch_size")
    if config.dtype == "mixed_float16":
        raise ValueError("dtype mixed_float16 works on one device only: with several, use mixed_bfloat16")


def _open_data(folders):
    """(shard paths, number of photos, sha256 over all that the shards hold, in their order)."""
    paths, photos, faces, digest = [], 0, 0, hashlib.sha256()
    for folder in folders:
        manifest, shards = open_shards(folder)
        paths += shards
        photos += manifest["counts"]["photos"]
        faces += manifest["counts"]["faces"]
        for shard in manifest["shards"]:
            digest.update(shard["sha256"].encode())
    if not photos or not faces:
        missing = "face to learn" if photos else "photo to train on"
        raise ValueError(f"{', '.join(map(str, folders))}: no {missing}: see what `convert` reported")
    return paths, photos, digest.hexdigest()


def _batch_options(config, model, step):
    augment = dataclasses.asdict(config.data.augment)
    enabled = augment.pop("enabled")
    return {
        "image_size": config.data.image_size,
        "batch_size": config.data.batch_size,
        "seed": config.seed,
        "start_step": step,
        "max_faces": config.data.max_faces,
        "shuffle_buffer": config.data.shuffle_buffer,
        "fill": [round(mean) for mean in model.pixel_mean],
        "augment": enabled,
        "fields": vertex_fields(model.topology.mirror) if model.dense and needs_vertex_labels(model) else (),
        **(augment if enabled else {"min_face": augment["min_face"]}),
    }


def _keep_config(output, config, data, digest):
    """Write the run's configuration, or see that a run to go on with has the same, and the same data."""
    path = output / CONFIG_FILE
    content = {"config": to_dict(config), "data": [str(folder) for folder in data], "data_sha256": digest}
    # A start that failed before its first checkpoint left nothing to go on with: it binds nobody.
    if path.is_file() and (latest_checkpoint(output / "checkpoints") or (output / MODEL_FILE).exists()):
        try:
            begun = json.loads(path.read_text("utf-8"))
            before = override(TrainConfig(), begun["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the configuration of a run ({error}): give another --output") from None
        changed = [name for name in differences(config, before) if name not in ("epochs", "validate_every")]
        if begun.get("data_sha256", digest) != digest:
            changed.append("data (steps and batches would be others)")
        if changed:
            raise ValueError(
                f"{output}: this run was begun with another {', '.join(changed)}: give the same, or another --output"
            )
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1) + "\n")


def _logs(output, config, state, paths, num_photos, score, monitor, wandb, kept):
    """The callbacks that write: validation first, so that its scores are in the rows."""
    writer = tf.summary.create_file_writer(str(output / "tensorboard"))
    rows = CsvLog(output / "log.csv", "epoch", before=state.epoch)
    steps = CsvLog(output / "steps.csv", "step", before=state.step + 1)
    # From the first shards only: drawn from all, the whole data set would be read for four pictures.
    shown = read_photos(paths, IMAGES, min(num_photos, 50 * IMAGES), config.seed)
    photos = [example["image"] for example in shown]
    every, epochs = config.validate_every, config.epochs
    callbacks = [LogImages(photos, writer, every, state, kept, epochs)]
    if score:
        before = [float(row[monitor]) for row in rows.rows if row.get(monitor) not in (None, "", "nan")]
        save = lambda model: save_model(for_detection(model), output / BEST_FILE)  # noqa: E731
        callbacks.append(PeriodicEval(score, every, monitor, max(before, default=-math.inf), save, kept, epochs))
    callbacks.append(LogMetrics(state, steps, rows, writer, config.log_steps))
    if wandb:
        callbacks.append(WeightsAndBiases(output, wandb, to_dict(config)))
    return callbacks
