"""Detect faces in a stream of photos, decoded ahead and in batches. A bad photo does not affect the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from retinaface_tf.image.ahead import Decoded, decode_ahead, size_of
from retinaface_tf.image.loading import ImageError, load_image
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.report import file_name

AHEAD = 4  # batches of each worker that may be finished before their turn
BYTES_PER_WORKER = 12_000_000  # of decoded photos that wait


@dataclass(frozen=True)
class Result:
    """One photo of `detect_stream`.

    Attributes:
        key: as it was given with the photo.
        image: uint8 array `[H, W, 3]`, or `None` if it could not be decoded.
        detections: `Detections`, or `None` after an error.
        error: the exception of the decoder or of the detector, or `None`.
    """

    key: Any
    image: np.ndarray | None
    detections: Detections | None = None
    error: Exception | None = None


def detect_stream(
    detect: Callable[[list[Any]], Iterable[Detections]],
    photos: Iterable[tuple[Any, Any]],
    *,
    read: Callable[[Any], Any] = load_image,
    batch_size: int = 8,
    workers: int = 1,
    max_bytes: int | None = None,
) -> Iterator[Result]:
    """Find the faces of photo after photo.

    Args:
        detect: function of a list of images that returns as many `Detections`; it groups them by size, as the `detect`
            of every model does. With `workers` over 1 it is called from several threads at a time. Where it fails on a
            list, each image of the list is tried alone, and only the images that fail alone get an error.
        photos: iterable of (key, source); see `decode_ahead`.
        read: function of a source that returns the image, `load_image` if not given.
        batch_size: number of images of a call.
        workers: number of calls at the same time, and of photos decoded at the same time.
        max_bytes: of the decoded photos that wait; `None` for `BYTES_PER_WORKER`. A batch ends early at a share of it.

    Yields:
        `Result`, in the order of `photos`.
    """
    running: deque[Any] = deque()  # (the results to come, their bytes)
    max_bytes = BYTES_PER_WORKER * workers if max_bytes is None else max_bytes
    ahead = decode_ahead(photos, read, threads=workers, ahead=2 * batch_size * workers, max_bytes=max_bytes)
    pool = ThreadPoolExecutor(workers)
    try:
        while batch := _batch(ahead, batch_size, max_bytes // (4 * workers)):
            held = sum(map(size_of, batch))
            running.append((pool.submit(_detect_batch, detect, batch), held))
            del batch
            # A large photo at the head of the row keeps no worker waiting, unless the others are large too.
            while len(running) > AHEAD * workers or (
                len(running) > workers and sum(size for _, size in running) > max_bytes // 2
            ):
                yield from running.popleft()[0].result()
        while running:
            yield from running.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        ahead.close()  # type: ignore[attr-defined]


def _batch(photos: Iterator[Decoded], size: int, max_bytes: int) -> list[Decoded]:
    """The next photos, fewer where they are large."""
    batch, held = [], 0
    for photo in islice(photos, size):
        batch.append(photo)
        held += size_of(photo)
        if held >= max_bytes:
            break
    return batch


def _detect_batch(detect, batch):
    results = [Result(photo.key, photo.image, error=photo.error) for photo in batch]
    good = [number for number, result in enumerate(results) if result.error is None]
    try:
        found = list(detect([results[number].image for number in good])) if good else []
    except Exception as error:  # out of memory, most likely: the other photos of the batch do not pay for one
        if len(good) == 1:
            results[good[0]] = replace(results[good[0]], error=error)
            return results
        alone = [_detect_batch(detect, [photo])[0] for photo in batch]
        return alone
    if len(found) != len(good):
        raise ValueError(f"`detect` must return one result for each image: {len(good)} images, {len(found)} results")
    for number, faces in zip(good, found, strict=True):
        results[number] = replace(results[number], detections=faces)
    return results


def describe_error(name: str, error: Exception) -> str:
    """The line that reports give for a photo that failed. It begins with the photo's name."""
    name, lines = file_name(name), file_name(error).strip().splitlines()
    if isinstance(error, ImageError):
        text = " ".join(lines)
        return text if text.startswith(name) else f"{name}: {text}"
    if isinstance(error, MemoryError):
        return f"{name}: not enough memory for this photo"
    reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return f"{name}: can't be processed ({reason})"
