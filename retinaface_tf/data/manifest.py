"""The manifest of a folder of shards, and checks against it. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.json_files import DictOf, FileName, Int, ListOf, Optional, check, read_json
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.cleaning import PROBLEMS

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


MANIFEST = "manifest.json"
FINGERPRINTED = ("boxes", "landmarks", "visible", "flags", "blur_score")
SHARD_NAME = re.compile(r"faces-\d{5}-of-\d{5}\.tfrecord")
COUNT = Int(low=0)
COUNTS = {"photos": COUNT, "faces": COUNT, "faces_with_landmarks": COUNT, "turned": COUNT}
SCHEMA = {
    "complete": bool,
    "source": Optional(dict),
    "options": {"shards": Int(low=0, high=99999)},
    "counts": {"photos": COUNT, "faces": Optional(COUNT), "problems": Optional(DictOf(COUNT))},
    "shards": ListOf(
        {**COUNTS, "file": FileName(), "bytes": COUNT, "sha256": str, "problems": ListOf(ListOf(str, length=3))}
    ),
}
FORMAT = 1  # of the manifest and the examples; raised when either changes


def shard_name(index: int, count: int) -> str:
    return f"faces-{index:05d}-of-{count:05d}.tfrecord"


def fingerprint(annotations: Annotations) -> str:
    """sha256 over all that annotations say of faces to train on, in their order."""
    digest = hashlib.sha256()
    for photo in annotations:
        width, height = photo.sizes[0].tolist()
        told = {
            "name": photo.files[0],
            **{key: getattr(photo, key).tolist() for key in FINGERPRINTED},
            **({} if (photo.scores == 1).all() else {"scores": photo.scores.tolist()}),
            **({"ignore": photo.ignore.tolist()} if photo.ignore.any() else {}),
            "size": [width, height] if width else None,
            "normalized": photo.normalized,
        }
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def file_sha256(path: PathLike) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over shard entries: photos, faces, faces with landmarks, photos that EXIF turns, each of `PROBLEMS`."""
    kinds = Counter(kind for shard in shards for _, kind, _ in shard["problems"])
    totals = {key: sum(shard[key] for shard in shards) for key in ("photos", "faces", "faces_with_landmarks", "turned")}
    for key in ("faces_fitted", "faces_with_vertices"):  # of `label3d` alone
        if any(key in shard for shard in shards):
            totals[key] = sum(shard[key] for shard in shards)
    return {**totals, "problems": {kind: kinds[kind] for kind in PROBLEMS}}


def write_manifest(
    folder: Path, source: dict[str, Any], options: Mapping[str, Any], shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write `manifest.json` for the shards finished so far, and return it. `complete` once all are there."""
    shards = sorted(shards, key=lambda shard: shard["file"])
    manifest = {
        "format": FORMAT,
        "complete": len(shards) == options["shards"],
        "source": source,
        "options": options,
        "counts": summary(shards),
        "shards": shards,
    }
    with atomic_write(Path(folder) / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def read_manifest(folder: PathLike) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none.

    Raises:
        ValueError: it is not one of ours, or of another format.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = read_json(path, {"format": Int()})
    except FileNotFoundError:
        return None
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, it has {manifest['format']}: convert the data again")
    check(manifest, SCHEMA, path)
    for shard in manifest["shards"]:
        if not SHARD_NAME.fullmatch(shard["file"]):
            raise ValueError(f"{path}: {shard['file'][:100]!r} is not the name of a shard, such as {shard_name(0, 1)}")
    return manifest


def open_shards(folder: PathLike, verify: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """The finished shards of a folder that `convert` wrote: (manifest, list of `Path`, in order).

    `verify` computes and compares every shard's sha256; else only its size.

    Raises:
        FileNotFoundError: no manifest there, or a shard is missing.
        ValueError: conversion has not finished, or a shard is not what was written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder}: no {MANIFEST} there: expected a folder that `retinaface-tf convert` wrote")
    if not manifest["complete"]:
        done, wanted = len(manifest["shards"]), manifest["options"]["shards"]
        raise ValueError(f"{folder}: {done} of {wanted} shards are finished: run the same `convert` command again")
    paths = []
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, but in the manifest: run the same `convert` command again")
        if not is_intact(path, shard, verify):
            raise ValueError(f"{path}: not the file that the manifest describes: run the same `convert` command again")
        paths.append(path)
    return manifest, paths


def is_intact(path: Path, shard: Mapping[str, Any], verify: bool = True) -> bool:
    """Whether a file is the one that a shard entry describes."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size != shard["bytes"]:
        return False
    return not verify or file_sha256(path) == shard["sha256"]
