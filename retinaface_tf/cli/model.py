"""Open the model of a command. Errors that need no TensorFlow are raised before it is imported."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from retinaface_tf.cli.options import THRESHOLDS

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.predictor import Detector


def open_model(
    preset: str | None,
    path: str | None,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    thresholds: dict[str, Any] | None = None,
) -> RetinaFace | Detector:
    """Open a preset, or the model at a path.

    Args:
        preset: Name of a preset, used where `path` is `None`.
        path: Path of a .keras file or an artifact.
        runtime: As in `retinaface_tf.load`; `None` for the default of the model.
        threads: Likewise.
        thresholds: `score_threshold`, `nms_threshold` and `max_detections` of the calls to come, or `None`. An
            artifact that has fixed them otherwise is refused now, not at each photo.

    Raises:
        ValueError: Neither is given, or it is no such model.
        OSError: The file is missing.
    """
    from retinaface_tf import loading
    from retinaface_tf.common.imports import import_tensorflow

    model_name = _name_model(preset, path)
    if loading.needs_tensorflow(model_name, runtime):
        import_tensorflow()
    model = loading.load(model_name, runtime=runtime, threads=threads)
    if thresholds is not None and hasattr(model, "thresholds"):
        model.thresholds(**thresholds)
    return model


def _name_model(preset, path):
    """What `retinaface_tf.load` takes; refuses the name of a preset that is none before TensorFlow starts."""
    from retinaface_tf import presets

    if path is not None:
        return str(path)
    if preset is None:
        raise ValueError("name the model to run: --preset NAME or --model PATH")
    presets.load(preset)
    return preset


def plan_workers(preset: str | None, path: str | None, runtime: str | None, num_photos: int) -> tuple[int, int | None]:
    """The number of photos to run at the same time, and the threads of each, as `open_model` takes them.

    A photo a core is faster than all cores on each photo; but a model in TensorFlow uses all cores for each call.
    """
    from retinaface_tf import loading

    model = _name_model(preset, path)
    workers = 1 if loading.needs_tensorflow(model, runtime) else max(1, min(count_cores(), num_photos // 2))
    return workers, None if workers == 1 or loading.divides_threads(model, runtime) else 1


def find_settings(preset: str | None, path: str | None, runtime: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """All that the detections of a run depend on, JSON-ready: "model", "runtime", and `options` of `detect`.

    Thresholds that are `None` or missing become those of the model.
    """
    from retinaface_tf import loading

    model = _name_model(preset, path)
    thresholds = {name: options.get(name) for name in THRESHOLDS}
    # What an artifact can't answer to is said once, and not of each photo. Only some formats fix anything, and
    # opening those is quick; a model in Python has the usual defaults.
    if not loading.needs_tensorflow(model, runtime):
        thresholds = loading.load(model, threads=1, runtime=runtime).thresholds(**thresholds)
    elif loading.kind_of(model) in ("preset", "keras"):
        thresholds = {name: THRESHOLDS[name] if value is None else value for name, value in thresholds.items()}
    return {**loading.identify(model, runtime), **options, **thresholds}


def count_cores() -> int:
    """The number of cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def given_thresholds(args: argparse.Namespace) -> dict[str, Any]:
    """The thresholds that the user gave: dict without the others, for which the model has its own."""
    return {name: getattr(args, name) for name in THRESHOLDS if getattr(args, name) is not None}
