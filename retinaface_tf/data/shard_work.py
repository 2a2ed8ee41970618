"""Shards made one by one, in processes of their own, and what a killed run left of them."""

import multiprocessing
import os
import re
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from retinaface_tf.data.manifest import MANIFEST, is_intact, read_manifest

OURS = re.compile(r"faces-\d{5}-of-\d{5}\.tfrecord")
UNFINISHED = re.compile(rf"\.{OURS.pattern}\.\d+\.tmp")


def resume(output, source, options, overwrite):
    """The entries of shards that are finished and sound; what a killed run left half-written is removed."""
    manifest = None if overwrite else read_manifest(output)
    ours = [path for path in output.iterdir() if OURS.fullmatch(path.name)]
    if overwrite:
        for path in [*ours, output / MANIFEST]:
            path.unlink(missing_ok=True)
    elif manifest is None and ours:
        raise ValueError(f"{output}: holds {ours[0].name} and no {MANIFEST}: give another folder, or --overwrite")
    for path in output.iterdir():
        if UNFINISHED.fullmatch(path.name):
            path.unlink()
    if manifest is None:
        return []
    before = {**manifest["options"], "source": manifest["source"]["sha256"]}
    for key, value in {**options, "source": source["sha256"]}.items():
        if before.get(key) != value:
            was, now = ("other annotations", "these") if key == "source" else (f"{key}={before.get(key)}", value)
            raise ValueError(
                f"{output}: its shards were made with {was}, now {now}: give the same, another folder, or --overwrite"
            )
    return [shard for shard in manifest["shards"] if is_intact(output / shard["file"], shard)]


def index_of(shard):
    """Which shard an entry of the manifest is of: int."""
    return int(shard["file"].split("-")[1])


def each_shard(write, tasks, workers):
    """(index, entry) of each task, as they finish."""
    if workers <= 1:
        for index, records in tasks:
            yield index, write(index, records)
        return
    # Fresh processes: forked ones would inherit the caller's TensorFlow, whose threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        futures = {pool.submit(write, index, records): index for index, records in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise OSError("a worker process died (out of memory?): the same command goes on; try --workers 1") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us, in order
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a worker writes files; it must not take a device's memory
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    # A pool's worker holds both ends of its queue, so it would wait forever for a parent that was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)
