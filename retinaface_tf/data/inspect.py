"""What is in the shards? Face sizes, faces per photo, landmark coverage and flags, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.annotations import FLAG_MEANINGS, FLAGS
from retinaface_tf.common.landmarks import NOT_LABELED, OCCLUDED, VISIBLE

SIZE_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)  # of sqrt(width x height), pixels
CROWD_EDGES = (0, 1, 2, 3, 6, 11, 51, 101, np.inf)  # faces in a photo
POINT_NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
KEPT = ("width", "height", "orientation", "boxes", "visible", *FLAGS)


@dataclass(frozen=True)
class Contents:
    """All labels of a folder of shards, flat, photo after photo.

    Attributes:
        sizes: int `[P, 2]`, width and height of each photo.
        orientation: int `[P]`, EXIF.
        counts: int `[P]`, faces in each photo.
        boxes: float32 `[F, 4]`, `xyxy` pixels.
        visible: int `[F, 5]`.
        flags: int `[F, 6]` in the order of `FLAGS`.
    """

    sizes: np.ndarray
    orientation: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    flags: np.ndarray

    @property
    def face_sizes(self) -> np.ndarray:
        """sqrt(width x height) of each face, pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.sqrt(sides[:, 0] * sides[:, 1])


def read_contents(paths: Sequence[Path], progress: Callable[[int], object] | None = None) -> Contents:
    """Read the labels of shards, no pixels.

    Args:
        paths: list of `Path`, at least one.
        progress: callable(1), called for each photo.

    Returns:
        `Contents`.

    Raises:
        ValueError: a shard is damaged or not ours.
    """
    import tensorflow as tf

    from retinaface_tf.data.example import parse_example
    from retinaface_tf.data.graph import as_graph

    dataset = tf.data.TFRecordDataset([str(path) for path in paths]).map(
        as_graph(lambda one: {key: value for key, value in parse_example(one).items() if key in KEPT}),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    photos = []
    try:
        for one in dataset.prefetch(64).as_numpy_iterator():
            photos.append(one)
            if progress:
                progress(1)
    except tf.errors.OpError as error:
        message = " ".join(error.message.split())[:120]
        raise ValueError(f"{paths[0].parent}: a damaged shard after {len(photos)} photos ({message})") from None
    flags = [np.stack([one[flag] for flag in FLAGS], axis=-1) for one in photos]
    return Contents(
        sizes=np.array([(one["width"], one["height"]) for one in photos]).reshape(-1, 2),
        orientation=np.array([one["orientation"] for one in photos], int),
        counts=np.array([len(one["boxes"]) for one in photos], int),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(one["boxes"] for one in photos)]),
        visible=np.concatenate([np.zeros((0, 5), int), *(one["visible"] for one in photos)]),
        flags=np.concatenate([np.zeros((0, len(FLAGS)), int), *flags]),
    )


def statistics(contents: Contents) -> dict[str, Any]:
    """The numbers of a report: a dict of dicts that JSON can hold."""
    sizes, counts, visible = contents.face_sizes, contents.counts, contents.visible
    labelled = visible != NOT_LABELED
    result = {
        "photos": {
            "count": len(counts),
            "without faces": int((counts == 0).sum()),
            "turned by EXIF": int((contents.orientation != 1).sum()),
            "width": _range(contents.sizes[:, 0]),
            "height": _range(contents.sizes[:, 1]),
        },
        "faces": {
            "count": len(sizes),
            "per photo": _range(counts),
            "size in pixels": _range(sizes),
            "size as a part of the photo": _range(
                sizes / np.sqrt(np.repeat(contents.sizes.prod(-1), counts)) if len(sizes) else sizes
            ),
        },
        "faces by size": {
            label: {"faces": faces, "with landmarks": those}
            for (label, faces), those in zip(
                _bins(sizes, SIZE_EDGES, " px").items(),
                _bins(sizes[labelled.any(-1)], SIZE_EDGES, " px").values(),
                strict=True,
            )
        },
        "photos by faces": _bins(counts, CROWD_EDGES, "", whole=True),
        "landmarks": {
            "all five": int(labelled.all(-1).sum()),
            "some": int((labelled.any(-1) & ~labelled.all(-1)).sum()),
            "none": int((~labelled.any(-1)).sum()),
        },
        "points": {
            name: {"visible": int((column == VISIBLE).sum()), "occluded": int((column == OCCLUDED).sum())}
            for name, column in zip(POINT_NAMES, visible.T, strict=True)
        },
        "flags": {},
    }
    for flag, column in zip(FLAGS, contents.flags.T, strict=True):
        if (column >= 0).any():
            meanings = enumerate(FLAG_MEANINGS[flag])
            result["flags"][flag] = {meaning: int((column == value).sum()) for value, meaning in meanings}
    return result


def _range(values):
    """Smallest, median, mean and largest; None where there is nothing."""
    if not len(values):
        return dict.fromkeys(("min", "median", "mean", "max"))
    found = (values.min(), np.median(values), values.mean(), values.max())
    return {key: round(float(value), 3) for key, value in zip(("min", "median", "mean", "max"), found, strict=True)}


def _bins(values, edges, unit, whole=False):
    """Label -> number of values in `[low, high)`."""
    numbers, _ = np.histogram(values, edges)
    result = {}
    for (low, high), number in zip(pairwise(edges), numbers, strict=True):
        if high == np.inf:
            label = f"{low} and more{unit}"
        elif whole:
            label = str(low) if high == low + 1 else f"{low} to {high - 1}"
        else:
            label = f"{low} to {high}{unit}"
        result[label] = int(number)
    return result
