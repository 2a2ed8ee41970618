"""Write annotations to TFRecord shards: in parallel, reproducible, and resumable after a kill; split them before."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path, PurePosixPath
from typing import Any

from retinaface_tf.annotations.annotations import Annotations
from retinaface_tf.annotations.read import find_photos
from retinaface_tf.common.run_folder import differences
from retinaface_tf.common.types import NOT_LABELED, PathLike
from retinaface_tf.data.cleaning import PhotoError, Problem, clean, read_photo
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


LEAST_GROUPS = 5  # names that tell fewer apart say nothing
LARGEST_GROUP = 0.5  # of all photos
# What a series of photos differs in: frame and copy numbers at the end of the name.
NUMBER = re.compile(r"([ _.-]?(\(\d+\)|\d+))+$")


def split_annotations(annotations: Annotations, part: float, *, seed: int = 0) -> tuple[Annotations, Annotations, str]:
    """Split photos in two; photos that belong together stay together.

    The rule: photos of one folder belong together (WIDER FACE's events), else photos whose names differ in the number
    at the end alone (`Ann_Lee_1.jpg`, `Ann_Lee_23.jpg`: one person, or frames of one clip). A rule is used where it
    makes at least 5 groups and none of them holds more than half of the photos; where neither does, each photo stands
    alone. The groups are taken by a hash of seed and name: the same photos always come to the same side.

    Returns:
        (training part, validation part, the rule: "folder", "name" or "photo").

    Raises:
        ValueError: `part` is out of its range, or there are too few photos.
    """
    if not 0 < part < 1:
        raise ValueError(f"`part` must be in (0, 1). Received: part={part}")
    if len(annotations) < 2:
        raise ValueError(f"expected at least 2 photos to split. Received: {len(annotations)}")
    rule, groups = group_photos(annotations.files)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    wanted = max(1, round((1 - part) * len(annotations)))
    chosen: list[int] = []
    for group in order:
        photos = groups[group]
        nearer = abs(len(chosen) + len(photos) - wanted) < abs(len(chosen) - wanted)
        if nearer and len(chosen) + len(photos) < len(annotations):
            chosen += photos
    if not chosen:
        chosen = min((groups[group] for group in order), key=len)
    held = set(chosen)
    training = annotations.take([photo for photo in range(len(annotations)) if photo not in held])
    return training, annotations.take(sorted(held)), rule


def group_photos(files: tuple[str, ...]) -> tuple[str, dict[str, list[int]]]:
    """(rule, dict group -> indices of its photos); see `split_annotations`."""
    rules = {
        "folder": lambda path: path.parent.as_posix(),
        "name": lambda path: (path.parent / (NUMBER.sub("", path.stem) or path.stem)).as_posix(),
        "photo": lambda path: path.as_posix(),
    }
    groups: dict[str, list[int]] = {}
    for rule, key in rules.items():
        groups = defaultdict(list)
        for index, file in enumerate(files):
            groups[key(PurePosixPath(file))].append(index)
        together = len(groups) < len(files)
        if together and len(groups) >= LEAST_GROUPS and max(map(len, groups.values())) <= LARGEST_GROUP * len(files):
            return rule, dict(groups)
    return "photo", dict(groups)
