"""Statistics of shards: face sizes, faces per photo, landmark coverage and flags, as numbers and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.annotations.annotations import FLAG_MEANINGS, FLAGS
from retinaface_tf.common.imports import require
from retinaface_tf.common.text import one_line, printable
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE, PathLike

if TYPE_CHECKING:
    from retinaface_tf.data.augment import Augmentation

COLOR, SECOND = "#3b6ea5", "#e0a030"  # of plots
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
    """Read the labels of shards, no pixels; `progress(1)` is called for each photo.

    Raises:
        ValueError: a shard is damaged or not ours.
    """
    import tensorflow as tf

    from retinaface_tf.data.example import parse_example
    from retinaface_tf.data.pipeline import as_graph

    dataset = tf.data.TFRecordDataset([str(path) for path in paths]).map(
        as_graph(lambda one: {key: value for key, value in parse_example(one).items() if key in KEPT}),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    photos = []
    try:
        for one in dataset.prefetch(64).as_numpy_iterator():
            if len({len(one[key]) for key in ("boxes", "visible", *FLAGS)}) > 1:
                raise ValueError("labels of unequal lengths")
            photos.append(one)
            if progress:
                progress(1)
    except (tf.errors.OpError, ValueError) as error:  # TensorFlow's own message may be no UTF-8
        message = one_line(getattr(error, "message", error), 120)
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
    labeled = visible != NOT_LABELED
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
                _bins(sizes[labeled.any(-1)], SIZE_EDGES, " px").values(),
                strict=True,
            )
        },
        "photos by faces": _bins(counts, CROWD_EDGES, "", whole=True),
        "landmarks": {
            "all five": int(labeled.all(-1).sum()),
            "some": int((labeled.any(-1) & ~labeled.all(-1)).sum()),
            "none": int((~labeled.any(-1)).sum()),
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


def read_photos(paths: Sequence[Path], count: int, total: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """A random sample of at most `count` photos from shards, for `contact_sheet`.

    They are drawn from the first `total`. Photos that can't be parsed or decoded are left out.
    """
    import tensorflow as tf

    from retinaface_tf.data.example import decode_photo, parse_example

    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    dataset = tf.data.TFRecordDataset([str(path) for path in paths]).enumerate().take(int(chosen.max(initial=-1)) + 1)
    dataset = dataset.filter(lambda index, _: tf.reduce_any(index == chosen))
    examples = []
    for _, serialized in dataset:
        try:
            one = {key: value.numpy() for key, value in parse_example(serialized).items()}
            image = decode_photo(one["encoded"]).numpy()
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # TensorFlow's own message may be no UTF-8
            continue  # as training leaves it out
        name, faces = printable(one["filename"].decode("utf-8", "backslashreplace")), len(one["boxes"])
        caption = f"{name.rsplit('/')[-1]}: {faces} face{'' if faces == 1 else 's'}"
        labels = {key: one[key] for key in ("boxes", "landmarks", "visible", *FLAGS)}
        examples.append({"image": image, "caption": caption, **labels})
    return examples


def before_and_after(
    examples: Sequence[dict[str, Any]], augmentation: Augmentation, seed: int = 0
) -> list[dict[str, Any]]:
    """Each photo of `read_photos` twice, for a sheet with an even number of columns: as it is, and augmented."""
    pairs = []
    for index, one in enumerate(examples):
        image, faces = augmentation(one, np.array([seed, index], np.int64))
        faces = {key: value.numpy() for key, value in faces.items()}
        caption = f"augmented, {len(faces['boxes'])} left"
        pairs += [one, {"image": image.numpy(), "caption": caption, **faces}]
    return pairs


def plot_contents(folder: PathLike, contents: Contents) -> list[Path]:
    """Draw face sizes, faces per photo and landmark coverage into `folder`, and return the paths.

    Raises:
        ImportError: matplotlib is missing.
    """
    # The object interface: no display, no global state, safe beside a user's own pyplot.
    figure_class = require("matplotlib.figure", "plots", "a plot").Figure
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)

    def save(name, draw):
        figure = figure_class(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        written.append(folder / name)
        figure.savefig(written[-1], dpi=120)

    save("face_sizes.png", lambda axes: _face_sizes(axes, contents))
    save("faces_per_photo.png", lambda axes: _faces_per_photo(axes, contents))
    save("landmark_coverage.png", lambda axes: _coverage(axes, contents))
    return written


def _size_edges(sizes):
    """Edges, four for each doubling, around all sizes."""
    low, high = (np.log2(sizes.min()), np.log2(sizes.max())) if len(sizes) else (3, 9)
    return 2.0 ** (np.arange(np.floor(4 * low), np.ceil(4 * high) + 2) / 4)


def _face_sizes(axes, contents):
    sizes = contents.face_sizes
    labeled = (contents.visible != NOT_LABELED).any(-1)
    edges = _size_edges(sizes)
    axes.hist(sizes, edges, color=COLOR, label="all")
    if labeled.any():
        axes.hist(sizes[labeled], edges, color=SECOND, label="with landmarks")
        axes.legend()
    _size_axis(axes)
    axes.set(ylabel="faces", title=f"{len(sizes):,} faces by size")


def _faces_per_photo(axes, contents):
    largest = int(contents.counts.max(initial=1))
    # One bar a number while they can be told apart, then growing like the numbers.
    edges = np.unique(np.round(np.geomspace(1, largest + 1, 40))).astype(int)
    edges = np.concatenate([[0], edges])
    numbers, _ = np.histogram(contents.counts, edges)
    labels = [f"{low}" if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise(edges)]
    axes.bar(range(len(numbers)), numbers, width=0.9, color=COLOR)
    every = max(1, len(labels) // 12)
    axes.set_xticks(range(0, len(labels), every), labels[::every], rotation=45, ha="right", fontsize=8)
    axes.set(xlabel="faces in the photo", ylabel="photos", title=f"{len(contents.counts):,} photos by faces")


def _coverage(axes, contents):
    sizes = contents.face_sizes
    labeled = (contents.visible != NOT_LABELED).any(-1)
    edges = _size_edges(sizes)
    every, _ = np.histogram(sizes, edges)
    those, _ = np.histogram(sizes[labeled], edges)
    share = 100 * np.divide(those, every, out=np.zeros(len(every)), where=every > 0)
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=SECOND, edgecolor="white")
    _size_axis(axes)
    total = 100 * labeled.mean() if len(labeled) else 0.0
    axes.set(ylim=(0, 100), ylabel="faces with landmarks, %", title=f"Landmark coverage: {total:.1f} % of all faces")


def _size_axis(axes):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("face size, sqrt(width x height), pixels")


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
