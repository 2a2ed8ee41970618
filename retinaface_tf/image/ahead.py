"""Decode photos in threads ahead of their use, bounded in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

from retinaface_tf.image.loading import load_image

MAX_BYTES = 128_000_000  # of decoded photos that wait


@dataclass(frozen=True)
class Decoded:
    """One photo of `decode_ahead`: its key, and its image or the exception that its decoder raised."""

    key: Any
    image: Any
    error: Exception | None = None


def decode_ahead(
    photos: Iterable[tuple[Any, Any]],
    read: Callable[[Any], Any] = load_image,
    *,
    threads: int = 1,
    ahead: int = 8,
    max_bytes: int = MAX_BYTES,
) -> Iterator[Decoded]:
    """Decode photo after photo while the caller works on the earlier ones.

    Args:
        photos: iterable of (key, source). It is advanced in the threads, so it may read files itself; what it raises
            reaches the caller.
        read: function of a source that returns an array or bytes. Its exceptions become `Decoded.error`, so that one
            bad photo costs no other.
        threads: number of photos decoded at the same time.
        ahead: number of photos that may wait.
        max_bytes: of the photos that wait. One photo always goes through, however large it is, and the first
            `threads` photos, whose size nobody knows yet.

    Yields:
        `Decoded`, in the order of `photos`.
    """
    source, numbers, lock = iter(photos), count(), threading.Lock()
    end, exhausted = object(), threading.Event()

    def step() -> tuple[int, Any]:
        with lock:  # the order of the photos is the order of the numbers
            key, item = next(source, (end, None))
            number = next(numbers)
        if key is end:
            exhausted.set()
            return number, end
        try:
            return number, Decoded(key, read(item))
        except Exception as error:
            return number, Decoded(key, None, error)

    started: deque[Any] = deque()  # futures, in the order of their start
    ready: dict[int, Any] = {}  # finished out of turn
    largest = 0  # size of a photo, of those seen so far
    pool = ThreadPoolExecutor(threads)
    try:
        for following in count():
            waiting = sum(map(size_of, ready.values()))
            for future in started:
                size = size_of(future.result()[1]) if future.done() and not future.exception() else None
                largest = max(largest, size or 0)
                waiting += largest if size is None else size  # a photo that is not decoded yet is taken to be large
            while not started or (
                not exhausted.is_set()
                and len(started) + len(ready) < (max(ahead, threads) if largest else threads)
                and waiting + largest <= max_bytes
            ):
                started.append(pool.submit(step))
                waiting += largest
            while following not in ready:
                number, decoded = started.popleft().result()
                ready[number] = decoded
            decoded = ready.pop(following)
            largest = max(largest, size_of(decoded))
            if decoded is end:
                return
            yield decoded
            del decoded  # the caller alone holds it now
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def size_of(decoded: Any) -> int:
    """Bytes of the image of a `Decoded`; 0 of one that failed."""
    image = getattr(decoded, "image", None)
    return int(getattr(image, "nbytes", 0)) or (len(image) if isinstance(image, bytes) else 0)
