"""Run a `.tflite` file in LiteRT. No TensorFlow."""

from __future__ import annotations

import os
import threading
import zipfile
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from retinaface_tf.common.imports import suppress_stderr
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.artifact import parse
from retinaface_tf.inference.tiles import at_size

MAX_THREADS = 4  # by default; more bring little on images of these sizes
SIGNATURE = "detect"
METADATA, MAX_METADATA = "retinaface.json", 64_000_000  # bytes; a mesh's topology takes a few MB
# An interpreter keeps the memory of its largest image, 86 bytes a pixel, and to go to and fro between a photo and its
# small copy costs it a third of the time of the photo. So there are some for small copies, some for photos, and few for
# large photos, which run one at a time on all cores.
SMALL_PIXELS, LARGE_PIXELS = 100_000, 1_000_000
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
        threads: int, of each call; `None` for all cores, up to `MAX_THREADS`, until calls run at the same time, which
            then take one each.

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
        self._begin()
        height, width = self._size or SMALL
        with self._interpreter(height * width):
            pass
        self._run = self._run_each if self._size is None else at_size(self._run_one, self._size, self.metadata["fill"])

    def _begin(self):
        self._process, self._running, self._shared, self._lock = os.getpid(), 0, False, threading.Lock()
        self._idle: dict[tuple[int, int], deque[Any]] = defaultdict(deque)  # by class of size and threads
        cores = os.cpu_count() or 1
        self._large = threading.Semaphore(max(1, cores // (self.threads or _count_threads())))

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
        with self._interpreter(images.shape[1] * images.shape[2]) as run:
            outputs = run(**inputs)
        return {**outputs, "count": np.minimum(outputs["count"], max_detections)}

    @contextmanager
    def _interpreter(self, pixels: int) -> Iterator[Any]:
        """An interpreter for an image of this number of pixels, which no other thread uses at the same time."""
        if os.getpid() != self._process:
            # After a fork an interpreter waits for ever for its threads, which stayed in the parent. They are replaced,
            # and kept: to delete one would wait as well.
            self._left_behind = self._idle
            self._begin()
        is_large = pixels > LARGE_PIXELS
        with self._large if is_large else nullcontext():
            with self._lock:
                self._running += 1
                self._shared = self._shared or self._running > 1
            threads = self.threads or (1 if self._shared and not is_large else _count_threads())
            idle = self._idle[bisect_left((SMALL_PIXELS, LARGE_PIXELS), pixels), threads]
            try:
                run = idle.pop() if idle else self._open(threads)
                yield run
                idle.append(run)  # not after an error, which may have left it without memory
            finally:
                with self._lock:
                    self._running -= 1

    def _open(self, threads):
        """A function of the inputs that returns the outputs: the signature that takes thresholds."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                f"{self.path}: LiteRT runs .tflite files and is not installed ({error}): pip install ai-edge-litert"
            ) from None
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


def _count_threads():
    return min(MAX_THREADS, os.cpu_count() or 1)


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
