"""Raise an error if Keras has another backend than TensorFlow. Import this before Keras."""

import json
import os
import sys
from pathlib import Path


def chosen_backend() -> tuple[str, str]:
    """The backend that Keras has or will have, and the setting that chose it: pair of str."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        return keras.config.backend(), "KERAS_BACKEND or keras.json"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME") or (Path.home() / ".keras")
    path = Path(home) / "keras.json"
    try:
        return str(json.loads(path.read_text("utf-8"))["backend"]), f"`backend` in {path}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "tensorflow", "the default"


backend, setting = chosen_backend()
if backend != "tensorflow":
    raise ImportError(
        f"RetinaFace needs Keras' TensorFlow backend, and {setting} says {backend!r}: set KERAS_BACKEND=tensorflow"
    )
