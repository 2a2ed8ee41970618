"""One stream over photos: order, errors, memory."""

import random
import threading
import time

import numpy as np
import pytest

from retinaface_tf.image.ahead import decode_ahead
from retinaface_tf.image.loading import ImageError
from retinaface_tf.inference.stream import describe_error, detect_stream


def read(number):
    time.sleep(random.Random(number).random() * 0.003)  # photos take different times
    if number == 7:
        raise ImageError("seven.jpg: damaged")
    return np.full((1, 1, 3), number)


@pytest.mark.parametrize("threads", [1, 4])
def test_photos_keep_their_order_and_a_bad_one_costs_no_other(threads):
    decoded = list(decode_ahead(((f"k{n}", n) for n in range(30)), read, threads=threads))
    assert [each.key for each in decoded] == [f"k{n}" for n in range(30)]
    assert [each.key for each in decoded if each.error] == ["k7"]
    assert all(each.image[0, 0, 0] == n for n, each in enumerate(decoded) if n != 7)
    assert list(decode_ahead([], read, threads=threads)) == []


def test_what_the_source_raises_reaches_the_caller():
    def photos():
        yield "a", 1
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        list(decode_ahead(photos(), read))


@pytest.mark.parametrize(("max_bytes", "most"), [(300, 3), (0, 1)])
def test_decoded_photos_that_wait_are_bounded_in_bytes(max_bytes, most):
    started = []

    def slow(number):
        started.append(number)
        return bytes(100)

    for number, _ in enumerate(decode_ahead(((n, n) for n in range(20)), slow, ahead=50, max_bytes=max_bytes)):
        time.sleep(0.005)  # the next ones are decoded meanwhile
        assert len(started) - number - 1 <= most
    assert started == list(range(20))
    stream = decode_ahead(((n, n) for n in range(20)), slow, ahead=6)
    started.clear()
    next(stream), next(stream)
    time.sleep(0.05)
    assert 3 <= len(started) <= 8  # bounded in number too, and really ahead
    stream.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_detections_come_in_order_and_a_failure_is_of_its_photo_alone(workers):
    sizes, together, lock = [], [0, 0], threading.Lock()

    def detect(images):
        with lock:
            together[0] += 1
            together[1] = max(together)
            sizes.append(len(images))
        time.sleep(0.002)
        with lock:
            together[0] -= 1
        if any(image[0, 0, 0] == 13 for image in images):
            raise RuntimeError("OOM\nand a page more")
        return [int(image[0, 0, 0]) for image in images]

    results = list(detect_stream(detect, ((n, n) for n in range(40)), read=read, batch_size=4, workers=workers))
    assert [result.key for result in results] == list(range(40))
    assert {result.key: type(result.error) for result in results if result.error} == {7: ImageError, 13: RuntimeError}
    assert all(result.detections == result.key for result in results if result.error is None)
    assert max(sizes) == 4
    assert together[1] <= workers
    assert describe_error("b.png", results[13].error) == "b.png: can't be processed (RuntimeError: OOM)"
    assert describe_error("seven.jpg", results[7].error) == "seven.jpg: damaged"
    assert describe_error("big.png", MemoryError()) == "big.png: not enough memory for this photo"


def test_a_slow_photo_keeps_no_worker_waiting():
    done, slow = [], threading.Event()

    def detect(images):
        (number,) = (int(image[0, 0, 0]) for image in images)
        if number == 0:
            slow.wait(10)
        done.append(number)
        if len(done) == 6:
            slow.set()
        return [number]

    results = list(detect_stream(detect, ((n, n) for n in range(10) if n != 7), read=read, batch_size=1, workers=2))
    assert [result.detections for result in results] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert done.index(0) >= 6  # the other worker went on


def test_large_photos_make_small_batches():
    sizes = []
    photos = ((n, n) for n in range(6))

    def detect(images):
        sizes.append(len(images))
        return images

    list(detect_stream(detect, photos, read=lambda n: np.zeros(100), batch_size=6, max_bytes=6400))
    assert sizes == [2, 2, 2]  # a quarter of the bytes, 800 each


def test_a_detector_that_loses_a_photo_is_an_error():
    with pytest.raises(ValueError, match="2 images, 1 results"):
        list(detect_stream(lambda images: images[:1], [(0, 0), (1, 1)], read=read, batch_size=2))


def test_a_stream_that_is_left_ends_its_threads():
    before = threading.active_count()
    stream = detect_stream(lambda images: images, ((n, n) for n in range(1000)), read=read, workers=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before
