"""The model that a command's words name, opened; what can be said before TensorFlow starts is said before."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.predictor import Detector


def open_model(
    preset: str | None, path: str | None, *, runtime: str | None = None, thresholds: dict[str, Any] | None = None
) -> RetinaFace | Detector:
    """Open a preset, or the model at a path.

    Args:
        preset: Name of a preset, used where `path` is `None`.
        path: Path of a .keras file or an artifact.
        runtime: What runs an artifact, or `None` for the usual.
        thresholds: `score_threshold`, `nms_threshold` and `max_detections` of the calls to come, or `None`. An
            artifact that has fixed them otherwise is refused now, not at each photo.

    Raises:
        ValueError: Neither is given, or it is no such model.
        OSError: The file is missing.
    """
    from retinaface_tf import loading, presets
    from retinaface_tf.common.imports import import_tensorflow

    if path is None and preset is None:
        raise ValueError("name the model to run: --preset NAME or --model PATH")
    if path is None:
        presets.load(str(preset))  # a mistyped name is answered before TensorFlow starts
    if path is None or loading.needs_tensorflow(path):
        import_tensorflow()
    model = loading.load(str(preset) if path is None else path, runtime=runtime)
    if thresholds is not None and hasattr(model, "thresholds"):
        model.thresholds(**thresholds)
    return model


def given_thresholds(args: argparse.Namespace) -> dict[str, Any]:
    """The thresholds that the user gave: dict without the others, for which the model has its own."""
    names = ("score_threshold", "nms_threshold", "max_detections")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
