"""A `.tflite` file run by LiteRT. No TensorFlow."""

import os
import threading
import zipfile

import numpy as np

from retinaface_tf.common.imports import suppress_stderr
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.artifact import parse
from retinaface_tf.inference.fixed_size import at_size

MOST_THREADS = 4  # of LiteRT's own accord; more bring little on images of these sizes
SIGNATURE = "detect"


class TFLiteModel:
    """An artifact of `retinaface-tf export tflite`, for `runtimes.Detector`.

    Args:
        path: of the file.
        threads: int, or `None` for one a core, up to `MOST_THREADS`.

    Attributes:
        metadata: dict.
        run: function of images of any size, as `Detector` wants it. Calls from several threads wait for each other.

    Raises:
        ImportError: if LiteRT is missing.
        OSError: if the file can't be read.
        ValueError: if it is no such artifact.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        self.metadata = parse(_read_json(path), path)
        self._lock = threading.Lock()  # an interpreter has one set of tensors
        self._runner = _open(path, threads or min(MOST_THREADS, os.cpu_count() or 1))
        with suppress_stderr():  # in its first run LiteRT says there that it uses XNNPACK
            self._first_run(path)
        self.run = at_size(self._run_one, tuple(self.metadata["input"]["size"]), self.metadata["fill"])

    def _first_run(self, path):
        try:
            blank = np.zeros((1, *self.metadata["input"]["size"], 3), np.uint8)
            self._run_one(blank, np.zeros((1, 4), np.float32), 1, 1, 1)
        except (ValueError, RuntimeError) as error:  # a model that opens can yet be damaged
            raise ValueError(f"{path}: LiteRT can't run this model ({str(error).strip().splitlines()[0]})") from None

    def _run_one(self, images, windows, score_threshold, nms_threshold, max_detections):
        with self._lock:
            outputs = self._runner(
                images=images,
                windows=windows,
                score_threshold=np.float32(score_threshold),
                nms_threshold=np.float32(nms_threshold),
            )
        return {**outputs, "count": np.minimum(outputs["count"], max_detections)}


def _read_json(path):
    """The text of our metadata, a file in the zip behind the model: bytes, or `None` if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("retinaface.json")
    except (zipfile.BadZipFile, KeyError):
        return None


def _open(path, threads):
    """The runner of the signature that takes thresholds."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            f"{path}: LiteRT runs .tflite files and is not installed ({error}): pip install 'retinaface-tf[litert]'"
        ) from None
    try:
        interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads)
        return interpreter.get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: LiteRT can't open this model ({str(error).strip().splitlines()[0]})") from None
