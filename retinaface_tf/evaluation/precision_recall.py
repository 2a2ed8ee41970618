"""From counts at falling thresholds to precision, recall and their one number, average precision."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def average_precision(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under the interpolated curve, all points (PASCAL VOC from 2010 on; `VOCap.m`).

    Args:
        recall: Float array `[..., T]`, rising.
        precision: Float array `[..., T]`.

    Returns:
        Float64 array `[...]` in `[0, 1]`; NaN where the recall is NaN (nothing to find).
    """
    recall = _pad(recall, first=0.0, last=1.0)
    precision = _pad(precision, first=0.0, last=0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(np.diff(recall, axis=-1) * envelope[..., 1:], axis=-1)


def precision_recall(proposals: np.ndarray, hits: np.ndarray, num_faces: Any) -> tuple[np.ndarray, np.ndarray]:
    """Counts to curve.

    Args:
        proposals: Integer array `[..., T]`: detections that count, at or above each threshold.
        hits: Integer array `[..., T]`: faces found by them.
        num_faces: Integer or array `[...]`: faces to find.

    Returns:
        `(precision, recall)`, float64 `[..., T]`. Precision is 0 before the first proposal, where the Matlab tool has
        NaN and skips it: the recall is 0 there too, so that the area is the same. Recall is NaN without faces.
    """
    proposals, hits = np.asarray(proposals, np.float64), np.asarray(hits, np.float64)
    num_faces = np.asarray(num_faces, np.float64)[..., None]
    precision = np.divide(hits, proposals, out=np.zeros_like(hits), where=proposals > 0)
    recall = np.divide(hits, num_faces, out=np.full_like(hits, np.nan), where=num_faces > 0)
    return precision, recall


def percentile_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The middle `confidence` of bootstrap samples, NaN left out: `(low, high)` floats, NaN without samples."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1). Received: confidence={confidence}")
    samples = np.asarray(samples, np.float64)
    samples = samples[~np.isnan(samples)]
    if samples.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _pad(values, first, last):
    values = np.asarray(values, np.float64)
    ends = (*values.shape[:-1], 1)
    return np.concatenate([np.full(ends, first), values, np.full(ends, last)], axis=-1)
