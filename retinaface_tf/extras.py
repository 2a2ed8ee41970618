"""What a small install lacks, said in one line."""

from contextlib import contextmanager

TENSORFLOW = ("keras", "scipy", "tensorboard", "tensorflow")  # the modules of the extra `tensorflow`


@contextmanager
def tensorflow_needed(what):
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
