"""Run a `.tflite` file in LiteRT. No TensorFlow."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from retinaface_tf.common.imports import suppress_stderr
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.artifact import parse
from retinaface_tf.inference.fixed_size import at_size

MAX_THREADS = 4  # by default; more bring little on images of these sizes
SIGNATURE = "detect"
METADATA, MAX_METADATA = "retinaface.json", 64_000_000  # bytes; a mesh's topology takes a few MB
SMALL_PIXELS = 100_000  # the small copies of the close-up pass have fewer
SMALL = (32, 32)  # the size of the first image of a file that takes any

_opening = threading.Lock()  # LiteRT announces its delegate on standard error, which is closed for that moment


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class TFLiteModel:
    """An artifact of `retinaface-tf export tflite`, for `predictor.Detector`.

    Calls from several threads run at the same time, each on an interpreter of its own. A model pickles as its path, and
    works in a child process after a fork.

    Args:
        path: of the file, of any size of images or of one.
        threads: int, of each interpreter; `None` for one for each core, up to `MAX_THREADS`.

    Attributes:
        metadata: dict, see `artifact.SCHEMA`.

    Raises:
        ImportError: if LiteRT is missing.
        OSError: if the file can't be read.
        ValueError: if it is no such artifact.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        self.path, self.threads = os.fspath(path), threads
        self.metadata = parse(_read_json(path), path)
        self._size = None if self.metadata["input"]["size"] is None else tuple(self.metadata["input"]["size"])
        # Interpreters for small and for large images; `append` and `pop` of a list are atomic. To go to and fro between
        # a photo and its small copy costs one interpreter a third of the time of a photo.
        self._idle: dict[bool, list[Any]] = {True: [], False: []}
        self._process = os.getpid()
        self._idle[self._is_small(self._size or SMALL)].append(self._open())
        self._run = self._run_each if self._size is None else at_size(self._run_one, self._size, self.metadata["fill"])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (os.path.abspath(self.path), self.threads)  # noqa: PTH100 - `resolve` would follow links

    def __repr__(self) -> str:
        return f"TFLiteModel({self.path!r})"

    def run(
        self, images: np.ndarray, windows: np.ndarray, score_threshold: float, nms_threshold: float, max_detections: int
    ) -> dict[str, np.ndarray]:
        """Run a batch, image after image; see `predictor.Runtime`."""
        thresholds: dict[str, Any] = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
        return self._run(images, windows, max_detections=max_detections, **thresholds)

    def _run_each(self, images, windows, **thresholds):
        rows = [self._run_one(images[i : i + 1], windows[i : i + 1], **thresholds) for i in range(len(images))]
        return rows[0] if len(rows) == 1 else _concatenate(rows)

    def _run_one(self, images, windows, score_threshold, nms_threshold, max_detections):
        inputs = {
            "images": images,
            "windows": np.asarray(windows, np.float32),
            "score_threshold": np.float32(score_threshold),
            "nms_threshold": np.float32(nms_threshold),
        }
        if self._size is None:
            inputs["max_detections"] = np.int32(max_detections)
        with self._interpreter(self._is_small(images.shape[1:3])) as run:
            outputs = run(**inputs)
        return {**outputs, "count": np.minimum(outputs["count"], max_detections)}

    @staticmethod
    def _is_small(size):
        return size[0] * size[1] <= SMALL_PIXELS

    @contextmanager
    def _interpreter(self, small: bool) -> Iterator[Any]:
        """An interpreter that no other thread uses meanwhile; those left idle are as many as ever ran together."""
        if os.getpid() != self._process:
            # After a fork an interpreter waits for ever for its threads, which stayed in the parent. They are replaced,
            # and kept: to delete one would wait as well.
            self._left_behind, self._idle, self._process = self._idle, {True: [], False: []}, os.getpid()
        idle = self._idle[small]
        try:
            run = idle.pop()
        except IndexError:
            run = self._open()
        yield run
        idle.append(run)  # not after an error, which may have left it without memory

    def _open(self):
        """A function of the inputs that returns the outputs: the signature that takes thresholds."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                f"{self.path}: LiteRT runs .tflite files and is not installed ({error}): pip install ai-edge-litert"
            ) from None
        threads = self.threads or min(MAX_THREADS, os.cpu_count() or 1)
        with _opening, suppress_stderr():
            try:
                run = Interpreter(model_path=self.path, num_threads=threads).get_signature_runner(SIGNATURE)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{self.path}: LiteRT can't open this model ({first_line(error)})") from None
            blank = {
                "images": np.zeros((1, *(self._size or SMALL), 3), np.uint8),
                "windows": np.zeros((1, 4), np.float32),
                "score_threshold": np.float32(1),
                "nms_threshold": np.float32(1),
            }
            if self._size is None:
                blank["max_detections"] = np.int32(1)
            try:
                run(**blank)
            except (ValueError, RuntimeError) as error:  # a model that opens can still be damaged
                raise ValueError(f"{self.path}: LiteRT can't run this model ({first_line(error)})") from None
        return run


def _concatenate(rows):
    """Outputs of several images as those of a batch; those with fewer faces are filled up with zeros."""
    most = max(row["scores"].shape[1] for row in rows)

    def padded(array):
        missing = most - array.shape[1] if array.ndim > 1 else 0
        return np.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)) if missing else array

    return {name: np.concatenate([padded(row[name]) for row in rows]) for name in rows[0]}


def _read_json(path):
    """The text of our metadata, a file in the zip behind the model: bytes, or `None` if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(METADATA).file_size > MAX_METADATA:
                return None
            return archive.read(METADATA)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, ValueError, EOFError):
        return None
