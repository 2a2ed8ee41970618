"""Face verification: TAR at given FARs, as IJB-B and IJB-C are reported.

The embedding network is the user's, as are the steps before it (`detect`, `align`). This file has the steps after it:
pool, compare, count.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinaface_tf.annotations.text import find_encoding
from retinaface_tf.common.files import open_file, require_file
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def evaluate_verification(
    embeddings: Sequence[PathLike],
    templates: PathLike,
    pairs: PathLike,
    *,
    scores: PathLike | None = None,
    fars: Sequence[float] = FARS,
) -> dict[str, Any]:
    """TAR at given FARs from files.

    Args:
        embeddings: Paths of one or more .npy arrays `[M, D]`; NaN rows are faces that were not found.
        templates: Path of a text file, a line an image: name, template, medium.
        pairs: Path of a text file, a line a pair: template, template, 1 if they are of one person.
        scores: Path of a .npy array `[M]` of weights, or None.
        fars: Floats in (0, 1).

    Returns:
        Dict `pairs`, `images`, and `runs`: path of the embeddings -> `faces_not_found` and `rates`, of `tar_at_far`.

    Raises:
        ValueError, OSError: One line: a file is not what it should be, or can't be read.
    """
    images = _read_columns(templates, (1, 2), "name, template, medium")
    compared = _read_columns(pairs, (0, 1, 2), "template, template, 0 or 1")
    if (odd := np.flatnonzero((compared[:, 2] != 0) & (compared[:, 2] != 1))).size:
        raise ValueError(f"{pairs}: pair {odd[0] + 1}: expected 0 or 1. Received: {compared[odd[0], 2]}")
    weights = None if scores is None else _load(scores, 1)
    runs = {}
    for path in embeddings:
        features = _load(path, 2)
        if len(features) != len(images):
            raise ValueError(f"{path} has {len(features)} rows, {templates} has {len(images)} images")
        ids, pooled = pool_templates(features, images[:, 0], images[:, 1], weights)
        similarities = pair_similarities(ids, pooled, compared[:, 0], compared[:, 1])
        missing = int((~np.isfinite(features).all(axis=1)).sum())
        runs[str(path)] = {"faces_not_found": missing, "rates": tar_at_far(similarities, compared[:, 2] == 1, fars)}
    return {"pairs": len(compared), "images": len(images), "runs": runs}


def pool_templates(
    embeddings: np.ndarray, templates: np.ndarray, media: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One unit vector a template: embeddings averaged within each medium (a video is one), then summed over the media.

    Args:
        embeddings: Float array `[M, D]`, one an image; NaN rows (no face found) are left out.
        templates: Integer array `[M]`: the template each image belongs to.
        media: Integer array `[M]`: the photo or video it comes from.
        weights: Float array `[M]`, such as detector scores, multiplied in after scaling to unit length; or None.

    Returns:
        `(ids, features)`: the templates, rising `[T]`, and float32 `[T, D]`. A template without any face is a zero
        vector: its similarity to everything is 0.

    Raises:
        ValueError: The lengths differ.
    """
    embeddings = np.asarray(embeddings, np.float32)
    templates, media = np.asarray(templates), np.asarray(media)
    if embeddings.ndim != 2 or not len(embeddings) == len(templates) == len(media):
        raise ValueError(
            f"expected one embedding per image: {embeddings.shape} embeddings, {len(templates)} templates, "
            f"{len(media)} media"
        )
    ids = np.unique(templates)
    found = np.isfinite(embeddings).all(axis=1)
    embeddings, templates, media = embeddings[found], templates[found], media[found]
    units = _unit(embeddings)
    if weights is not None:
        units = units * np.asarray(weights, np.float32)[found, None]
    features = np.zeros((len(ids), embeddings.shape[1]), np.float32)
    if len(units):
        pairs, group = np.unique(np.stack([templates, media]), axis=1, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        starts = np.searchsorted(group.ravel()[order], np.arange(pairs.shape[1]))
        sums = np.add.reduceat(units[order], starts, axis=0)
        means = sums / np.diff(np.append(starts, len(order)))[:, None]
        np.add.at(features, np.searchsorted(ids, pairs[0]), means)
    return ids, _unit(features)


def pair_similarities(
    ids: np.ndarray, features: np.ndarray, first: np.ndarray, second: np.ndarray, *, chunk: int = 100_000
) -> np.ndarray:
    """Cosine similarity of template pairs: float32 `[P]`. In chunks: IJB-C has 15 million pairs.

    Raises:
        ValueError: A pair names a template that has no images.
    """
    ids = np.asarray(ids)
    rows = []
    for side in (np.asarray(first), np.asarray(second)):
        row = np.minimum(np.searchsorted(ids, side), len(ids) - 1)
        if (unknown := side[ids[row] != side]).size:
            raise ValueError(f"a pair names template {unknown[0]}, which has no images in the template list")
        rows.append(row)
    result = np.empty(len(rows[0]), np.float32)
    for start in range(0, len(result), chunk):
        part = slice(start, start + chunk)
        result[part] = np.einsum("nd,nd->n", features[rows[0][part]], features[rows[1][part]])
    return result


def tar_at_far(similarities: np.ndarray, same: np.ndarray, fars: Sequence[float] = FARS) -> list[dict[str, Any]]:
    """Share of genuine pairs accepted where at most the given share of impostors is.

    A pair is accepted above the threshold, the lowest that keeps false accepts within `far` times the impostors. Ties
    with the first impostor too many are rejected.

    Args:
        similarities: Float array `[P]`.
        same: Bool array `[P]`: whether both templates are of one person.
        fars: Floats in (0, 1).

    Returns:
        List of dicts `far`, `tar`, `interval_95` (Wilson, over genuine pairs), `threshold`, `false_accepts`, and
        `measurable`: whether there are enough impostors for even one false accept at this rate.

    Raises:
        ValueError: No genuine pair or no impostor, or a FAR out of range.
    """
    similarities, same = np.asarray(similarities, np.float64), np.asarray(same, bool)
    genuine, impostors = np.sort(similarities[same]), np.sort(similarities[~same])[::-1]
    if not genuine.size or not impostors.size:
        raise ValueError(f"expected genuine pairs and impostors. Received: {genuine.size} and {impostors.size}")
    rows = []
    for far in fars:
        if not 0 < far < 1:
            raise ValueError(f"`fars` must be in (0, 1). Received: {far}")
        allowed = min(math.floor(far * impostors.size + 1e-9), impostors.size - 1)
        threshold = float(impostors[allowed])
        accepted = int(genuine.size - np.searchsorted(genuine, threshold, side="right"))
        rows.append(
            {
                "far": far,
                "tar": accepted / genuine.size,
                "interval_95": wilson_interval(accepted, genuine.size),
                "threshold": threshold,
                "false_accepts": int((impostors > threshold).sum()),
                "measurable": allowed >= 1,
            }
        )
    return rows


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which stays in [0, 1] and has a width even at 0 and 1: two floats."""
    share = successes / trials
    center = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def _unit(vectors):
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _load(path, dimensions):
    require_file(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # never a pickle, and no more of the file than is used
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise nearly anything
        raise ValueError(f"{path}: not a .npy file of numbers ({first_line(error)})") from None
    if array.ndim != dimensions or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected real numbers in {dimensions} dimensions. Received: {array.dtype}, shape {array.shape}"
        )
    return array


def _read_columns(path, columns, expected):
    try:
        with open_file(path) as file:  # by its path NumPy would unpack an archive of any size
            encoding = find_encoding(file.read(200))
            file.seek(0)
            lines = io.TextIOWrapper(file, "utf-8-sig" if encoding == "utf-8" else encoding)  # any end of a line
            table = np.loadtxt(lines, dtype=np.int64, usecols=columns, ndmin=2)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text ({error.reason}). Save the file as UTF-8") from None
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected lines of {expected} ({first_line(error)})") from None
    if not len(table):
        raise ValueError(f"{path} is empty: expected lines of {expected}")
    return table
