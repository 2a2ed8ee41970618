"""TensorFlow, imported without the pages that its C++ parts write to standard error while it loads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Import TensorFlow for a command; what Python raises comes through, `TF_CPP_MIN_LOG_LEVEL=0` lets all through."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        import tensorflow

        return
    with standard_error_closed():
        import tensorflow  # noqa: F401


@contextmanager
def standard_error_closed() -> Iterator[None]:
    """Let nothing through to standard error, not even what C++ writes straight to its file descriptor."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
