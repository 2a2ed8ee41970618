"""Import optional packages, with one line that says how to install a missing one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# Modules of the extra `tensorflow` -> their names in messages.
TENSORFLOW = {"keras": "TensorFlow", "scipy": "SciPy", "tensorboard": "TensorBoard", "tensorflow": "TensorFlow"}
BUNDLED = ("mobilenet025_crowd", "mobilenet025_masked", "mobilenet025_wider")  # presets that run without it


def install_hint(extra: str) -> str:
    """The command that installs an extra of this package, from an index and from a clone of the repository."""
    return f"pip install 'retinaface-tf[{extra}]', or in a clone pip install -e '.[{extra}]'"


@contextmanager
def tensorflow_needed(what: str) -> Iterator[None]:
    """If a module of the extra `tensorflow` is missing, raise an ImportError: what needs it, how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        if module not in TENSORFLOW:
            raise
        line = f"{what} needs {TENSORFLOW[module]}, which is not installed ({error}): "
        if TENSORFLOW[module] != "TensorFlow":
            raise ImportError(f"{line}pip install {module}") from None
        raise ImportError(
            f"{line}{install_hint('tensorflow')}. Without it, these presets run: {', '.join(BUNDLED)}; so do exported "
            ".tflite and .onnx files"
        ) from None


def require(module: str, extra: str, what: str) -> Any:
    """Import a module of an extra. The ImportError begins with what needs it, and says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module} ({error}): {install_hint(extra)}") from None


def import_tensorflow() -> None:
    """Import TensorFlow without what its C++ code prints while it loads; `TF_CPP_MIN_LOG_LEVEL=0` keeps that."""
    from retinaface_tf.common import tensorflow_backend  # noqa: F401 (names a wrong setting of Keras)

    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        import tensorflow

        return
    with suppress_stderr():
        import tensorflow  # noqa: F401


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """Suppress standard error, including what C++ code writes straight to its file descriptor."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
