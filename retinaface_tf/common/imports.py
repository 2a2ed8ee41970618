"""What a small install lacks, said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

TENSORFLOW = ("keras", "scipy", "tensorboard", "tensorflow")  # the modules of the extra `tensorflow`


@contextmanager
def tensorflow_needed(what: str) -> Iterator[None]:
    """Turn the absence of a module of the extra `tensorflow` into a line that says how to get it.

    Args:
        what: str that needs it: the subject of the line.

    Raises:
        ImportError: in place of the `ModuleNotFoundError`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in TENSORFLOW:
            raise
        raise ImportError(
            f"{what} needs more than this small install has ({error}): pip install 'retinaface-tf[tensorflow]'. "
            "What runs without: exported .tflite and .onnx files"
        ) from None


def require(module: str, extra: str, what: str) -> Any:
    """Import a module of an extra.

    Args:
        module: str, its name.
        extra: str, the extra that brings it.
        what: str that needs it: the subject of the line.

    Raises:
        ImportError: one line that says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module} ({error}): pip install 'retinaface-tf[{extra}]'") from None
