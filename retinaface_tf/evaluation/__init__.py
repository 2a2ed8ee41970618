"""Detections in, scores out: the numbers that this field reports. NumPy and SciPy only, no model code.

The public names are imported on first use (PEP 562): scoring needs no TensorFlow, and only the callback needs Keras.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "FaceAP": "callback",
    "ImageDetections": "detection_files",
    "PROTOCOLS": "protocols",
    "WiderGroundTruth": "wider_ground_truth",
    "detect_with": "protocols",
    "evaluate_fddb": "fddb",
    "evaluate_landmarks": "landmark_error",
    "evaluate_widerface": "widerface",
    "find_thresholds": "thresholds",
    "read_detections": "detection_files",
    "read_wider_ground_truth": "wider_ground_truth",
    "report_robustness": "robustness",
    "report_widerface": "wider_report",
    "run_detector": "runner",
    "score_detections": "thresholds",
    "tar_at_far": "verification",
    "vote": "box_voting",
    "write_detection_file": "detection_files",
}

__all__ = sorted([*_HOMES, "PROTOCOL_NAMES"])
PROTOCOL_NAMES = ("original", "1600", "vga", "multiscale", "1.5x", "2x", "3x")  # keys of `protocols.PROTOCOLS`


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Expected one of {__all__}")


def __dir__() -> list[str]:
    return __all__
