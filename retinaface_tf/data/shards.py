"""Records -> TFRecord shards: in parallel, the same bytes for any number of workers, resumable after a kill."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.annotations.record import NOT_LABELLED
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.cleaning import Problem, clean
from retinaface_tf.data.manifest import file_sha256, fingerprint, shard_name, write_manifest
from retinaface_tf.data.photo_file import PhotoError, read_photo
from retinaface_tf.data.shard_work import each_shard, index_of, resume

if TYPE_CHECKING:
    from retinaface_tf.annotations.record import Record


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
    records: list[Record],
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
    """Write all records, or what a killed run of the same left to do.

    Args:
        records: list of `Record`.
        images: folder that their names are below.
        output: folder to write; made if need be. It belongs to one data set alone.
        options: `ConvertOptions`.
        source: dict for the manifest: where the records are from.
        workers: number of processes; None for one a core. The bytes do not depend on it.
        strict: stop at the first problem of a photo or label.
        overwrite: remove what another source or other options have left there, instead of refusing.
        progress: callable(number of photos done), called when a shard is finished, those found finished included.

    Returns:
        The manifest, a dict.

    Raises:
        ValueError: nothing to write, or the folder holds something else, or `strict` and a problem.
        OSError: reading or writing failed.
    """
    images, output = Path(images), Path(output)
    if not records:
        raise ValueError("no photo to write: the annotations list none")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; expected the one with the photos")
    if not any((images / record.name).is_file() for record in records):
        raise FileNotFoundError(
            f"{images}: none of the {len(records)} photos is there; expected {records[0].name} in it"
        )
    if options.shards > len(records):
        raise ValueError(f"`shards` must be at most the number of photos, {len(records)}. Received: {options.shards}")
    workers = workers or available_cores()
    source = {**source, "photos": len(records), "sha256": fingerprint(records)}
    chosen = dict(vars(options))
    parts = _split(records, options)
    output.mkdir(parents=True, exist_ok=True)
    done = resume(output, source, chosen, overwrite)
    write_manifest(output, source, chosen, done)
    report = progress or (lambda photos: None)
    for shard in done:
        if strict and shard["problems"]:
            raise ValueError(_strict(Problem(*shard["problems"][0])))
        report(len(parts[index_of(shard)]))
    left = [i for i in range(options.shards) if i not in {index_of(shard) for shard in done}]
    write = partial(write_shard, images=images, output=output, options=options, strict=strict)
    for index, shard in each_shard(write, [(i, parts[i]) for i in left], min(workers, len(left))):
        done.append(shard)
        write_manifest(output, source, chosen, done)
        report(len(parts[index]))
    return write_manifest(output, source, chosen, done)


def write_shard(
    index: int, records: list[Record], *, images: Path, output: Path, options: ConvertOptions, strict: bool
) -> dict[str, Any]:
    """Write one shard beside its name, then give it that name: its entry for the manifest, a dict."""
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
            for record in records:
                kept, photo, problems = _prepare(record, images, options)
                if strict and problems:
                    raise ValueError(_strict(problems[0]))
                entry["problems"] += [list(problem) for problem in problems]
                if kept is None:
                    continue
                writer.write(to_example(kept, photo))
                entry["photos"] += 1
                entry["turned"] += photo.orientation != 1
                entry["faces"] += len(kept)
                entry["faces_with_landmarks"] += int((kept.visible != NOT_LABELLED).any(-1).sum())
        entry["sha256"], entry["bytes"] = file_sha256(beside), beside.stat().st_size
        beside.replace(final)
    except tf.errors.OpError as error:
        raise OSError(f"{final}: can't be written ({error.message})") from None
    finally:
        beside.unlink(missing_ok=True)
    return entry


def _prepare(record, images, options):
    from retinaface_tf.data.example import check_decodes

    try:
        photo = read_photo(images / record.name)
        if options.decode:
            check_decodes(photo)
    except PhotoError as error:
        return None, None, [Problem(record.name, error.kind, str(error))]
    kept, problems = clean(record, photo, labels=options.labels, drop_invalid=options.drop_invalid)
    return kept, photo, problems


def _split(records, options):
    """The records of each shard: shuffled by a hash, so that neither the file's order nor the machine matters."""
    order = sorted(records, key=lambda record: hashlib.sha256(f"{options.seed}/{record.name}".encode()).digest())
    bounds = [len(order) * i // options.shards for i in range(options.shards + 1)]
    return [order[low:high] for low, high in pairwise(bounds)]


def _strict(problem):
    return f"{problem}. --strict stops at the first problem; without it they are handled, counted and reported"
