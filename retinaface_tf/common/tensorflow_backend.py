"""Raise an error if Keras has another backend than TensorFlow. Import this before Keras."""

import json
import os
import sys
from pathlib import Path

ALLOWED: dict[str, tuple] = {  # in keras.json, of TensorFlow
    "floatx": ("float32", "float16", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
    "epsilon": (1e-7,),
}


def chosen_backend() -> tuple[str, str]:
    """The backend that Keras has or will have, and the setting that chose it: pair of str."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        return keras.config.backend(), "KERAS_BACKEND or keras.json"
    path = Path(os.environ.get("KERAS_HOME") or (Path.home() / ".keras")) / "keras.json"
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):  # which Keras passes over
        settings = {}
    _check(settings, path)
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
    return ("tensorflow", "the default") if "backend" not in settings else (settings["backend"], f"`backend` in {path}")


def _check(settings, path):
    """Raise ImportError for settings with which TensorFlow does not start; it says so in tracebacks of its own."""
    if not isinstance(settings, dict):
        raise ImportError(f"{path}: expected an object with the settings of Keras. Received: {settings!r:.60}")
    for name, values in ALLOWED.items():
        value = settings.get(name, values[0])
        if value not in values if isinstance(values[0], str) else not isinstance(value, float):
            expected = " or ".join(map(repr, values)) if isinstance(values[0], str) else "a number such as 1e-07"
            raise ImportError(f"{path}: `{name}` must be {expected}. Received: {value!r:.60}")


backend, setting = chosen_backend()
if backend != "tensorflow":
    raise ImportError(
        f"RetinaFace needs Keras' TensorFlow backend, and {setting} says {backend!r}: set KERAS_BACKEND=tensorflow"
    )
