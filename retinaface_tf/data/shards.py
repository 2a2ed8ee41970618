"""Write annotations to TFRecord shards: in parallel, reproducible, and resumable after a kill."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.annotations.read import find_photos
from retinaface_tf.common.run_folder import differences
from retinaface_tf.common.types import NOT_LABELED, PathLike
from retinaface_tf.data.cleaning import Problem, clean
from retinaface_tf.data.manifest import (
    MANIFEST,
    SHARD_NAME,
    file_sha256,
    fingerprint,
    is_intact,
    read_manifest,
    shard_name,
    write_manifest,
)
from retinaface_tf.data.photo_file import PhotoError, read_photo

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


UNFINISHED = re.compile(rf"\.{SHARD_NAME.pattern}\.\d+\.tmp")
PHOTOS_PER_SHARD = 256
LABELS = ("stored", "upright")


@dataclass(frozen=True)
class ConvertOptions:
    """What the bytes of the shards depend on, besides the source.

    Attributes:
        shards: number of shards.
        seed: of the order of the photos, which is by a hash of seed and name.
        labels: "stored" if labels are in pixels of the file, "upright" if drawn after EXIF orientation.
        drop_invalid: leave out faces that are flagged as invalid.
        decode: decode every photo, to find the damaged ones; else look at the header only.
    """

    shards: int
    seed: int = 0
    labels: str = "stored"
    drop_invalid: bool = False
    decode: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= 99999:
            raise ValueError(f"`shards` must be from 1 to 99999. Received: shards={self.shards}")
        if self.labels not in LABELS:
            raise ValueError(f"`labels` must be one of {list(LABELS)}. Received: labels={self.labels!r}")


def default_shards(photos: int) -> int:
    return max(1, -(-photos // PHOTOS_PER_SHARD))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_shards(
    annotations: Annotations,
    images: PathLike,
    output: PathLike,
    options: ConvertOptions,
    *,
    source: dict[str, Any],
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Write all photos, or the rest of an interrupted conversion.

    Args:
        annotations: `Annotations`.
        images: folder that their files are below.
        output: folder to write; made if need be. It belongs to one data set alone.
        options: `ConvertOptions`.
        source: dict for the manifest: where the annotations are from.
        workers: number of processes; None for one a core. The bytes do not depend on it.
        strict: stop at the first problem of a photo or label.
        overwrite: remove what another source or other options have left there, instead of refusing.
        progress: callable(number of photos done), called when a shard is finished, those found finished included.

    Raises:
        ValueError: nothing to write, or the folder holds something else, or `strict` and a problem.
        OSError: reading or writing failed.
    """
    images, output = Path(images), Path(output)
    if not len(annotations):
        raise ValueError("no photo to write: the annotations list none")
    if not annotations.has_boxes:
        raise ValueError("some faces have landmarks and no box: complete the labels with `retinaface-tf label` first")
    photos = find_photos(images, annotations)
    if options.shards > len(annotations):
        photos_there = len(annotations)
        raise ValueError(f"`shards` must be at most the number of photos, {photos_there}. Received: {options.shards}")
    workers = workers or available_cores()
    source = {**source, "photos": len(annotations), "sha256": fingerprint(annotations)}
    chosen = dict(vars(options))
    parts = _split(annotations, options)
    output.mkdir(parents=True, exist_ok=True)
    done = resume(output, source, chosen, overwrite)
    write_manifest(output, source, chosen, done)
    report = progress or (lambda photos: None)
    for shard in done:
        if strict and shard["problems"]:
            raise ValueError(_strict(Problem(*shard["problems"][0])))
        report(len(parts[index_of(shard)]))
    left = [i for i in range(options.shards) if i not in {index_of(shard) for shard in done}]
    write = partial(write_shard, output=output, options=options, strict=strict)
    pairs = zip(annotations.names, annotations.files, strict=True)
    path_of = {file: photos.get(name, images / file) for name, file in pairs}
    tasks = [(i, (parts[i], [path_of[file] for file in parts[i].files])) for i in left]
    for index, shard in each_shard(write, tasks, min(workers, len(left))):
        done.append(shard)
        write_manifest(output, source, chosen, done)
        report(len(parts[index]))
    return write_manifest(output, source, chosen, done)


def write_shard(
    index: int, part: tuple[Annotations, list[Path]], *, output: Path, options: ConvertOptions, strict: bool
) -> dict[str, Any]:
    """Write one shard under a temporary name and rename it. Returns its entry for the manifest, a dict."""
    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from retinaface_tf.data.example import to_example

    final = output / shard_name(index, options.shards)
    beside = output / f".{final.name}.{os.getpid()}.tmp"
    entry: dict[str, Any] = {"file": final.name, "photos": 0, "faces": 0, "faces_with_landmarks": 0, "turned": 0}
    entry["problems"] = []
    try:
        with tf.io.TFRecordWriter(str(beside)) as writer:
            for annotations, path in zip(*part, strict=True):
                kept, photo, problems = _prepare(annotations, path, options)
                if strict and problems:
                    raise ValueError(_strict(problems[0]))
                entry["problems"] += [list(problem) for problem in problems]
                if kept is None:
                    continue
                writer.write(to_example(kept, photo))
                entry["photos"] += 1
                entry["turned"] += photo.orientation != 1
                entry["faces"] += int((~kept.ignore).sum())
                entry["faces_with_landmarks"] += int((kept.visible != NOT_LABELED).any(-1).sum())
        entry["sha256"], entry["bytes"] = file_sha256(beside), beside.stat().st_size
        beside.replace(final)
    except tf.errors.OpError as error:
        raise OSError(f"{final}: can't be written ({error.message})") from None
    finally:
        beside.unlink(missing_ok=True)
    return entry


def _prepare(annotations, path, options):
    from retinaface_tf.data.example import check_decodes

    try:
        photo = read_photo(path)
        if options.decode:
            check_decodes(photo)
    except PhotoError as error:
        return None, None, [Problem(annotations.files[0], error.kind, str(error))]
    kept, problems = clean(annotations, photo, labels=options.labels, drop_invalid=options.drop_invalid)
    return kept, photo, problems


def _split(annotations, options):
    """The annotations of each shard: shuffled by a hash, so that neither the file's order nor the machine matters."""
    digests = [hashlib.sha256(f"{options.seed}/{file}".encode()).digest() for file in annotations.files]
    order = sorted(range(len(annotations)), key=digests.__getitem__)
    bounds = [len(order) * i // options.shards for i in range(options.shards + 1)]
    return [annotations.take(order[low:high]) for low, high in pairwise(bounds)]


def _strict(problem):
    return f"{problem}. --strict stops at the first problem; without it they are handled, counted and reported"


def resume(output, source, options, overwrite):
    """The entries of finished, intact shards; incomplete files of a killed run are removed."""
    manifest = None if overwrite else read_manifest(output)
    ours = [path for path in output.iterdir() if SHARD_NAME.fullmatch(path.name)]
    if overwrite:
        for path in [*ours, output / MANIFEST]:
            path.unlink(missing_ok=True)
    elif manifest is None and ours:
        raise ValueError(
            f"{output}: contains {ours[0].name} but no {MANIFEST}. Choose another folder, or add --overwrite"
        )
    for path in output.iterdir():
        if UNFINISHED.fullmatch(path.name):
            path.unlink()
    if manifest is None:
        return []
    before = {**manifest["options"], "source": manifest["source"]["sha256"]}
    for key, old, new in differences(before, {**options, "source": source["sha256"]}):
        was, now = ("other annotations", "these") if key == "source" else (f"{key}={old}", new)
        raise ValueError(
            f"{output}: its shards were made with {was}. Received: {now}. Use the same, another folder, or --overwrite"
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
            raise OSError(
                "a worker process died, perhaps for lack of memory. Run the same command again, or try --workers 1"
            ) from None
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
