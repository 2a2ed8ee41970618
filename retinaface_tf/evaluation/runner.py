"""Run a detector over labeled photos under a protocol; into a folder of result files the run is resumable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.files import require_file
from retinaface_tf.common.run_folder import begin_or_resume
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.detection_files import ImageDetections, write_detection_file
from retinaface_tf.evaluation.protocols import PROTOCOLS, Protocol
from retinaface_tf.image.ahead import decode_ahead
from retinaface_tf.image.loading import load_image


@dataclass(frozen=True)
class RunSummary:
    """What one call of `run_detector` did: photos detected now, photos already there, and seconds spent."""

    detected: int
    already_there: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.detected / self.seconds if self.seconds > 0 else 0.0


def run_detector(
    detect: Callable[[Any], Any],
    photos: Mapping[str, PathLike],
    directory: PathLike,
    *,
    protocol: Any = "original",
    batch_size: int = 1,
    settings: dict[str, Any] | None = None,
    progress: bool = True,
) -> RunSummary:
    """Write `event/photo.txt` for every photo that has none yet.

    Each file is written atomically after its photo, so an interrupted run resumes where it stopped, and several
    processes may share a folder (give each a part of the photos).

    Args:
        detect, photos, protocol, batch_size: As for `detect_photos`.
        directory: Folder for the results; made if missing.
        settings: JSON-ready dict that names model and thresholds. Kept in the folder: going on with other settings
            is an error, as the score would be of no model at all.
        progress: Whether to show a progress bar with images per second on standard error.

    Raises:
        ValueError: Unknown protocol, other settings than the folder's, or an image that can't be decoded.
        OSError: A photo can't be opened.
    """
    protocol = get_protocol(protocol)
    directory = Path(directory)
    targets = {name: directory / f"{name}.txt" for name in photos}
    todo = {name: photos[name] for name in photos if not targets[name].exists()}
    kept: dict[str, Any] = {"protocol": protocol.name, **(settings or {})}
    unknown: dict[str, Any] = {
        name: kept[name] for name in ("files", "runtime") if name in kept
    }  # to versions up to 0.2
    has_results = len(todo) < len(photos) or None
    begin_or_resume(directory, kept, has_results=has_results, complete=lambda before: {**unknown, **before})
    start = time.perf_counter()
    with _progress_bar(len(photos), len(photos) - len(todo), enabled=progress) as bar:
        for name, found in detect_photos(detect, todo, protocol=protocol, batch_size=batch_size):
            write_detection_file(targets[name], found)
            bar.update()
    return RunSummary(len(todo), len(photos) - len(todo), time.perf_counter() - start)


def detect_photos(
    detect: Callable[[Any], Any], photos: Mapping[str, PathLike], *, protocol: Any = "original", batch_size: int = 1
) -> Iterator[tuple[str, ImageDetections]]:
    """Detect in photo after photo under a protocol; the next photos are decoded while the detector computes.

    Args:
        detect: With `batch_size` 1, a callable from a uint8 RGB image `[H, W, 3]` to an object with `boxes` (`xyxy`
            pixels), `scores` and `landmarks`. Otherwise from a list of such images to a list of such objects.
        photos: Dict name -> image path.
        protocol: Name in `PROTOCOLS`, or a `Protocol`.
        batch_size: Number of images of a call. Views of one photo count one each.

    Yields:
        (name, `ImageDetections` in pixels of the photo as stored), in the order of `photos`.

    Raises:
        ValueError: Unknown protocol, or an image that can't be decoded.
        OSError: A photo can't be opened.
    """
    protocol = get_protocol(protocol)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    group = max(1, batch_size // protocol.num_views)
    for batch in _batches(_decoded(photos.items(), ahead=2 * group), group):
        yield from _detect_batch(detect, protocol, batch, batch_size)


def get_protocol(protocol: Any) -> Protocol:
    """A `Protocol` from its name; ValueError lists the names."""
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}. Expected one of {list(PROTOCOLS)}")
        return PROTOCOLS[protocol]
    return protocol


def read_image(path: PathLike) -> np.ndarray:
    """Decode to uint8 RGB `[H, W, 3]`, in the file's own orientation: annotations are in the file's pixels.

    Raises:
        ImageError: (a ValueError) The file is no image that can be decoded.
        OSError: It can't be opened.
    """
    return load_image(require_file(path), upright=False)


def _detect_batch(detect, protocol, batch, batch_size):
    views = [protocol.views(image) for _, image in batch]
    flat = [view for each in views for view in each]
    if batch_size == 1:
        found = [detect(view) for view in flat]
    else:
        found = [each for start in range(0, len(flat), batch_size) for each in detect(flat[start : start + batch_size])]
        if len(found) != len(flat):
            raise ValueError(f"`detect` must return one result per image: {len(flat)} images, {len(found)} results")
    for (name, image), shown in zip(batch, views, strict=True):
        mine, found = found[: len(shown)], found[len(shown) :]
        yield name, protocol.merge(image.shape, [view.shape for view in shown], mine)


def _decoded(items, ahead):
    """`(name, image)` in order, the next `ahead` images decoded in advance; the first that can't be is raised."""
    for decoded in decode_ahead(items, read_image, ahead=ahead):
        if decoded.error is not None:
            raise decoded.error
        yield decoded.key, decoded.image


def _batches(items, size):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _progress_bar(total, done, *, enabled):
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="image", desc="detect", file=sys.stderr, disable=not enabled)
