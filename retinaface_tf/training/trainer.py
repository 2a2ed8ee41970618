"""Train a detector on shards, or only check data and configuration with a dry run."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from retinaface_tf.common.files import atomic_write, require_writable, save_model
from retinaface_tf.common.run_folder import begin_or_resume, only_process
from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.inspect import read_photos
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import shard_errors, training_dataset
from retinaface_tf.dense.label3d import require_labels
from retinaface_tf.dense.vertex_labels import vertex_fields
from retinaface_tf.training.batch_norm import (
    batch_norm_stats,
    freeze,
    learns,
    needs_unfolding,
    recompute_bn_stats,
    synchronize_batch_norm,
    unfold_batch_norm,
)
from retinaface_tf.training.build import build_model, compile_model, for_detection, needs_vertex_labels
from retinaface_tf.training.callbacks import (
    CsvLog,
    FacesPerSecond,
    LogImages,
    LogMetrics,
    PeriodicEval,
    ProgressBar,
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
from retinaface_tf.training.config import TrainConfig, override, read_recipe, to_dict
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
from retinaface_tf.training.summary import describe, draw_plots, summarize
from retinaface_tf.training.validation import Validation

CONFIG_FILE, MODEL_FILE, BEST_FILE = "config.json", "model.keras", "best.keras"
START_FILE = "start.npz"  # with blend alone
IMAGES = 4
SMALL_VALIDATION = 200  # photos up to which each epoch is validated
BN_BATCH, BN_BATCHES = 16, 8  # photos and batches that statistics of batch normalization are measured with
FREE = ("config.epochs", "config.validate_every", "config.patience", "data")  # may change when a run is resumed


def train(
    config: TrainConfig | str,
    data: Sequence[PathLike],
    output: PathLike,
    *,
    validation: Validation | tuple[PathLike, PathLike] | None = None,
    strategy: str = "auto",
    wandb: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    plots: bool = True,
    verbose: int = 1,
) -> Path:
    """Train a detector. If a run was interrupted, the same call resumes it from the last checkpoint.

    Args:
        config: `TrainConfig`, or the name of a preset, to use its recipe.
        data: list of folders of shards from `retinaface-tf convert`.
        output: folder of the run: `config.json`, `checkpoints/`, `log.csv` (one row per epoch; row 0: before training),
            `steps.csv`, `tensorboard/`, `model.keras` (the weights after the last epoch), `summary.json`, plots, and,
            with validation, `best.keras`.
        validation: `Validation`, or a pair (labels, folder of the photos) as for `retinaface-tf evaluate`. It runs
            before training, every `config.validate_every` epochs, and after the last epoch.
        strategy: how to use several devices; see `make_strategy`.
        wandb: project on Weights & Biases, or `None`.
        callbacks: additional Keras callbacks.
        plots: bool. Write PNG plots to the folder at the end; needs matplotlib.
        verbose: int. 0: no progress bar.

    Returns:
        Path of `model.keras`.

    Raises:
        ValueError: if a value is invalid, the data has no photo or face, or a loss or weight becomes infinite or NaN.
        OSError: if data can't be read or output can't be written.
        Interrupted: if a signal stopped the run, after a checkpoint was saved.
    """
    config = read_recipe(config) if isinstance(config, str) else config
    if isinstance(validation, tuple):
        validation = Validation.open(*validation)
    if config.patience is not None and validation is None:
        raise ValueError("`patience` stops by the validation score: give validation photos as well")
    output = Path(output)
    require_writable(output / CONFIG_FILE)
    paths, num_photos, digest = open_data(data)
    steps_per_epoch = config.steps_per_epoch or max(1, num_photos // config.data.batch_size)

    strategy = make_strategy(strategy)
    if strategy.num_replicas_in_sync > 1:
        check_for_several_devices(config)
    chief = is_chief(strategy)
    tell = _tell if verbose and chief else lambda line: None
    if chief:
        keep_config(output, config, data, digest)
    with (
        only_process(output) if chief else nullcontext(),
        lost_worker_is_one_line(strategy),
        checkpoint_folder(strategy, output / "checkpoints") as folder,
        shard_errors(paths),
    ):
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            model = build_model(config)
            tell(f"starting from {f'the weights of {config.weights}' if config.weights else 'random weights'}")
            if model.topology is not None and needs_vertex_labels(model):
                require_labels(paths, model.topology)
            images = partial(_bn_images, config, model, paths, num_photos)
            freeze(model, config.freeze.batch_norm, config.freeze.body_stages, config.freeze.detector)
            calibrate = needs_unfolding(model) if config.freeze.calibrate is None else config.freeze.calibrate
            if calibrate and not latest_checkpoint(output / "checkpoints"):
                tell("measuring the statistics of batch normalization")
                dataset = training_dataset(paths, num_photos, **batch_options(config, model, 0))
                asked = (batch for batch, _ in dataset.take(config.freeze.calibrate or 0))
                unfold_batch_norm(model, asked if config.freeze.calibrate else images())
            if config.sync_batch_norm:
                synchronize_batch_norm(model)
            compile_model(model, config, steps_per_epoch)
            checkpoints = Checkpoints(folder, model, config.keep_checkpoints, read_from=output / "checkpoints")
        state = TrainState(steps_per_epoch, step=checkpoints.restore())
        if from_chief(strategy, state.step) != state.step:
            raise OSError(f"{output}: the workers see different checkpoints: expected a folder that all of them share")
        if state.step:
            tell(f"going on from step {state.step} ({checkpoints.latest})")
        start = _start_weights(config, model, output, checkpoints)
        kept = _KeptWeights(model, start, config.blend, state, images)

        def make_dataset(worker, num_workers):
            options = batch_options(config, model, state.step)
            return training_dataset(paths, num_photos, worker=worker, num_workers=num_workers, **options)

        every = [StepCounter(state, checkpoints, config.data.batch_size), FacesPerSecond(state), *callbacks]
        if state.step_in_epoch:
            every.insert(0, RestoredMetrics(model, state))
        evaluation, logs = None, []
        if chief:
            rows = CsvLog(output / "log.csv", "epoch", before=state.epoch + 1 if state.step else 0)
            if validation:
                evaluation = _periodic_eval(config, validation, output, rows, kept)
                if not rows.rows and not state.step:
                    tell(f"validating the start on {pluralize(len(validation.photos), 'photo')}")
                    with kept(model):
                        rows.add({"epoch": 0, "step": 0, **validation(model)})
            logs = _logs(output, config, state, paths, num_photos, evaluation, rows, wandb, kept)
        bar = ProgressBar(state, config.epochs) if verbose and chief else None
        every += [*logs, *([bar] if bar else [])]
        with SafeProgress(state, checkpoints, config.checkpoint_steps, signals=num_workers(strategy) == 1) as safe:
            try:
                while state.step < config.epochs * steps_per_epoch:
                    if evaluation and not state.step_in_epoch and evaluation.is_over(state.epoch):
                        break
                    # An interrupted epoch first, then all others: within one `fit` all epochs are equally long.
                    rest = steps_per_epoch - state.step_in_epoch
                    model.fit(
                        distribute(strategy, make_dataset),
                        initial_epoch=state.epoch,
                        epochs=config.epochs if rest == steps_per_epoch else state.epoch + 1,
                        steps_per_epoch=rest,
                        callbacks=[*every, safe],
                        shuffle=False,
                        verbose=0,
                    )
            finally:
                if bar:
                    bar.close()
    if chief:
        _finish(output, model, kept, validation, plots, tell)
    return output / MODEL_FILE


class _KeptWeights:
    """Context manager of the weights that are validated and saved: EMA, blended, with precise batch norm.

    The statistics are measured once for each step of the run.
    """

    def __init__(self, model, start, blend, state, images):
        self.model = model
        self.options = {"start": start, "blend": blend}
        self.state = state
        self.images = images
        self._step, self._measured = None, []

    @contextmanager
    def __call__(self, model):
        with ema_weights(model, **self.options):
            before = batch_norm_stats(model) if self.state.step and learns(model) else []
            try:
                if before:
                    self._measure()
                yield model
            finally:
                for variable, value in before:
                    variable.assign(value)

    def _measure(self):
        if self._step == self.state.step:
            for variable, value in self._measured:
                variable.assign(value)
            return
        recompute_bn_stats(self.model, self.images())
        self._step, self._measured = self.state.step, batch_norm_stats(self.model)


def _bn_images(config, model, paths, num_photos):
    """Batches of training images to measure batch normalization with: always the same ones."""
    options = {**batch_options(config, model, 0), "batch_size": BN_BATCH}
    dataset = training_dataset(paths, num_photos, **options)
    return (images for images, _ in dataset.take(BN_BATCHES))


def _start_weights(config, model, output, checkpoints):
    """The weights before the first step, which `blend` below 1 needs; otherwise `None`."""
    if config.blend == 1:
        return None
    path = output / START_FILE
    if checkpoints.latest is None:
        with atomic_write(path, "wb") as file:
            np.savez(file, *model.get_weights())
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(f"{path}: blend={config.blend} needs the weights that the run began with ({error})") from None


def _finish(output, model, kept, validation, plots, tell):
    """Save the model, and write the summary and the plots."""
    best = output / BEST_FILE
    with kept(model):
        save_model(for_detection(model), output / MODEL_FILE)
        if validation and validation.matching is None and plots:
            validation(model)  # a finished run that is started again
    summary = summarize(output, validation.monitor if validation else None, output / MODEL_FILE, best)
    drawn = []
    if plots:
        try:
            drawn = draw_plots(output, validation)
        except (ImportError, ValueError) as error:
            tell(f"no plots: {error}")
    tell(describe(summary, drawn))


def _tell(line):
    print(line, file=sys.stderr, flush=True)


def check_for_several_devices(config):
    # Keras puts both into a condition, in which TensorFlow allows no sum over devices.
    if config.optimizer.accumulate > 1:
        raise ValueError("optimizer.accumulate works on one device only: with several, give a smaller data.batch_size")
    if config.dtype == "mixed_float16":
        raise ValueError("dtype mixed_float16 works on one device only: with several, use mixed_bfloat16")


def open_data(folders):
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


def batch_options(config, model, step):
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


def keep_config(output, config, data, digest):
    """Write the run's configuration, or see that a run to resume has the same, and the same data."""
    content = {"config": to_dict(config), "data": [str(folder) for folder in data], "data_sha256": digest}
    begun = bool(latest_checkpoint(output / "checkpoints")) or (output / MODEL_FILE).exists()
    begin_or_resume(output, content, file=CONFIG_FILE, has_results=begun, may_change=FREE, complete=_complete)


def _complete(before):
    """The content of a `config.json`, with the fields that an earlier version did not have yet."""
    try:
        return {**before, "config": to_dict(override(TrainConfig(), before["config"]))}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not the configuration of a run ({error}): give another --output") from None


def validate_every(config, validation):
    if config.validate_every is not None:
        return config.validate_every
    return 1 if validation is None or len(validation.photos) <= SMALL_VALIDATION else 5


def _periodic_eval(config, validation, output, rows, kept):
    monitor = validation.monitor
    before = [
        (float(row[monitor]), int(row["epoch"]))
        for row in rows.rows
        if int(row["epoch"]) and row.get(monitor) not in (None, "", "nan")
    ]
    best, best_epoch = max(before, key=lambda pair: (pair[0], -pair[1]), default=(-math.inf, 0))
    return PeriodicEval(
        validation,
        validate_every(config, validation),
        monitor,
        best,
        lambda model: save_model(for_detection(model), output / BEST_FILE),
        kept,
        config.epochs,
        best_epoch=best_epoch,
        patience=config.patience,
    )


def _logs(output, config, state, paths, num_photos, evaluation, rows, wandb, kept):
    """The callbacks that write: validation first, so that its scores are in the rows."""
    writer = tf.summary.create_file_writer(str(output / "tensorboard"))
    steps = CsvLog(output / "steps.csv", "step", before=state.step + 1)
    # From the first shards only: drawn from all, the whole data set would be read for four photos.
    shown = read_photos(paths, IMAGES, min(num_photos, 50 * IMAGES), config.seed)
    photos = [example["image"] for example in shown]
    every = evaluation.every if evaluation else config.validate_every or 5
    callbacks = [LogImages(photos, writer, every, state, kept, config.epochs)]
    if evaluation:
        callbacks.append(evaluation)
    callbacks.append(LogMetrics(state, steps, rows, writer, config.log_steps))
    if wandb:
        callbacks.append(WeightsAndBiases(output, wandb, to_dict(config)))
    return callbacks


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
