"""The statistics of shards as pictures. Needs matplotlib (`pip install retinaface-tf[plots]`)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retinaface_tf.common.landmarks import NOT_LABELED
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.data.inspect import Contents


COLOUR, SECOND = "#3b6ea5", "#e0a030"


def plot_contents(folder: PathLike, contents: Contents) -> list[Path]:
    """Draw face sizes, faces per photo and landmark coverage into `folder`.

    Args:
        folder: made if need be.
        contents: `Contents`.

    Returns:
        List of the written paths.

    Raises:
        ValueError: matplotlib is missing.
    """
    try:
        # The object interface: no display, no global state, safe beside a user's own pyplot.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'retinaface-tf[plots]'") from error
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)

    def save(name, draw):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
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
    labelled = (contents.visible != NOT_LABELED).any(-1)
    edges = _size_edges(sizes)
    axes.hist(sizes, edges, color=COLOUR, label="all")
    if labelled.any():
        axes.hist(sizes[labelled], edges, color=SECOND, label="with landmarks")
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
    axes.bar(range(len(numbers)), numbers, width=0.9, color=COLOUR)
    every = max(1, len(labels) // 12)
    axes.set_xticks(range(0, len(labels), every), labels[::every], rotation=45, ha="right", fontsize=8)
    axes.set(xlabel="faces in the photo", ylabel="photos", title=f"{len(contents.counts):,} photos by faces")


def _coverage(axes, contents):
    sizes = contents.face_sizes
    labelled = (contents.visible != NOT_LABELED).any(-1)
    edges = _size_edges(sizes)
    every, _ = np.histogram(sizes, edges)
    those, _ = np.histogram(sizes[labelled], edges)
    share = 100 * np.divide(those, every, out=np.zeros(len(every)), where=every > 0)
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=SECOND, edgecolor="white")
    _size_axis(axes)
    total = 100 * labelled.mean() if len(labelled) else 0.0
    axes.set(ylim=(0, 100), ylabel="faces with landmarks, %", title=f"Landmark coverage: {total:.1f} % of all faces")


def _size_axis(axes):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("face size, sqrt(width x height), pixels")
