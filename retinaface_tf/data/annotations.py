"""Annotations and photos read back from shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retinaface_tf.annotations.annotations import FLAGS, UNKNOWN, Annotations, annotate_photo, join
from retinaface_tf.common.landmarks import NOT_LABELED
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.manifest import open_shards


def read_shards(folders: Sequence[PathLike]) -> tuple[Annotations, dict[str, bytes]]:
    """The annotations of shards, and their photos as files that can be decoded.

    Args:
        folders: Folders that `retinaface-tf convert` wrote.

    Returns:
        (`Annotations` with the subset "all", the faces not flagged as invalid; dict name -> encoded photo). Photos that
        can't be parsed are left out.

    Raises:
        ValueError: A folder holds no finished shards, or none of the photos can be read.
        OSError: A shard can't be read.
    """
    import tensorflow as tf

    from retinaface_tf.data.example import parse_example
    from retinaface_tf.data.pipeline import shard_errors

    parts, encoded = [], []
    for folder in folders:
        _, paths = open_shards(folder)
        with shard_errors(paths):
            for serialized in tf.data.TFRecordDataset([str(path) for path in paths]):
                try:
                    one = {key: value.numpy() for key, value in parse_example(serialized).items()}
                except tf.errors.InvalidArgumentError:
                    continue  # as training leaves it out
                parts.append(_annotations_of(one))
                encoded.append(one["encoded"])
    if not parts:
        raise ValueError(f"{', '.join(map(str, folders))}: no photo that can be read")
    annotations = join(parts)
    valid = annotations.flags[:, FLAGS.index("invalid")] != 1
    annotations = annotations.replace(subsets={"all": valid & ~annotations.ignore})
    return annotations, dict(zip(annotations.names, encoded, strict=True))


def _annotations_of(example):
    """`Annotations` of one photo from what `parse_example` returns; ignore regions come after the faces."""
    regions = len(example["regions"])
    boxes = np.concatenate([example["boxes"], example["regions"]])

    def padded(values, fill):
        return np.concatenate([values, np.full((regions, *values.shape[1:]), fill, values.dtype)])

    return annotate_photo(
        example["filename"].decode(),
        boxes,
        landmarks=padded(example["landmarks"], 0),
        visible=padded(example["visible"], NOT_LABELED),
        flags=padded(np.stack([example[flag] for flag in FLAGS], axis=-1), UNKNOWN),
        blur_score=padded(example["blur_score"], UNKNOWN),
        scores=padded(example["scores"], 1),
        ignore=np.arange(len(boxes)) >= len(example["boxes"]),
        size=(int(example["width"]), int(example["height"])),
    )
