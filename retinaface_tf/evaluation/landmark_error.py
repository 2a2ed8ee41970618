"""How far are five landmarks from where they should be, in units of the face's own size?"""

from typing import Any

import numpy as np

from retinaface_tf.evaluation.precision_recall import percentile_interval

NORMALISERS = ("inter-ocular", "box", "diagonal")
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def face_size(landmarks: np.ndarray, boxes: np.ndarray | None, normaliser: str) -> np.ndarray:
    """The length that errors are divided by.

    Args:
        landmarks: Float array `[N, 5, 2]`, ground truth, pixels.
        boxes: Float array `[N, 4]`, `xyxy` pixels, or None; only `inter-ocular` does without.
        normaliser: `inter-ocular`, the distance of the eyes; `box`, sqrt(width * height), as AFLW is reported;
            `diagonal`, of the box.

    Returns:
        Float64 `[N]`, pixels; NaN where the size is 0 or unknown.
    """
    if normaliser not in NORMALISERS:
        raise ValueError(f"`normaliser` must be one of {list(NORMALISERS)}. Received: normaliser={normaliser!r}")
    if normaliser == "inter-ocular":
        landmarks = np.asarray(landmarks, np.float64)
        size = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=-1)
    else:
        if boxes is None:
            raise ValueError(f"the normaliser {normaliser!r} needs face boxes, and this ground truth has none")
        sides = np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]
        sides = np.where((sides > 0).all(axis=1, keepdims=True), sides, np.nan)
        size = np.sqrt(sides.prod(axis=1)) if normaliser == "box" else np.hypot(sides[:, 0], sides[:, 1])
    return np.where(size > 0, size, np.nan)


def landmark_distances(predicted: np.ndarray, truth: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Normalised distance of each landmark: float64 `[N, 5]`.

    NaN where the truth is not annotated (NaN) or has no size; infinite where the face was not found (prediction NaN).
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or truth.shape[1:] != (5, 2):
        raise ValueError(f"expected two arrays [N, 5, 2]. Received: {predicted.shape} and {truth.shape}")
    distances = np.linalg.norm(predicted - truth, axis=-1) / np.asarray(size, np.float64)[:, None]
    missed = np.isnan(predicted).any(axis=(1, 2))
    judged = ~np.isnan(truth).any(axis=2) & ~np.isnan(size)[:, None]
    return np.where(judged, np.where(missed[:, None], np.inf, distances), np.nan)


def mean_errors(distances: np.ndarray) -> np.ndarray:
    """NME of each face over its annotated landmarks: float64 `[N]`; NaN where there are none."""
    judged = ~np.isnan(distances)
    total = np.where(judged, distances, 0).sum(axis=1)
    return np.divide(total, judged.sum(axis=1), out=np.full(len(total), np.nan), where=judged.any(axis=1))


def failure_rate(errors: np.ndarray, threshold: float) -> float:
    """Share of faces with an error above `threshold`, missed ones (infinite error) among them: float in [0, 1]."""
    errors = _judged(errors)
    return float(np.mean(errors > threshold)) if errors.size else float("nan")


def cumulative_error(errors: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of faces with an error of at most each threshold: float64 `[T]`."""
    errors = np.sort(_judged(errors))
    found = np.searchsorted(errors, thresholds, side="right")
    return found / errors.size if errors.size else np.full(len(thresholds), np.nan)


def area_under_curve(errors: np.ndarray, threshold: float) -> float:
    """Area under the cumulative error curve from 0 to `threshold`, divided by `threshold`: float in [0, 1].

    Exact, not sampled: a face with error e is under the curve from e on, so each gives `1 - e / threshold`, or 0.
    """
    if threshold <= 0:
        raise ValueError(f"`threshold` must be positive. Received: threshold={threshold}")
    errors = _judged(errors)
    return float(np.mean(np.maximum(0, 1 - errors / threshold))) if errors.size else float("nan")


def evaluate_landmarks(
    truth: np.ndarray,
    predicted: np.ndarray,
    boxes: np.ndarray | None = None,
    *,
    threshold: float = 0.1,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """All landmark numbers of a set of faces.

    Args:
        truth: Float array `[N, 5, 2]`, pixels; NaN where a landmark is not annotated.
        predicted: Float array `[N, 5, 2]`; NaN for a face that was not found.
        boxes: Float array `[N, 4]`, `xyxy` pixels of the ground truth, or None.
        threshold: Error at which the curve ends and a face has failed; 0.1 is 10 % of the face size.
        resamples: Bootstrap draws over faces for the interval of the NME; 0 for none.
        seed: Integer.

    Returns:
        Dict `faces`, `found`, `threshold` and, for every normaliser that the data allows, `nme` (mean over the found
        faces), `nme_of_each_landmark`, `auc`, `failure_rate` (missed faces fail) and, with `resamples`, `interval_95`.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    found = ~np.isnan(predicted).any(axis=(1, 2))
    result: dict[str, Any] = {"faces": len(truth), "found": int(found.sum()), "threshold": threshold}
    for normaliser in NORMALISERS if boxes is not None else NORMALISERS[:1]:
        distances = landmark_distances(predicted, truth, face_size(truth, boxes, normaliser))
        errors = mean_errors(distances)
        measured = errors[np.isfinite(errors)]
        each = [column[np.isfinite(column)] for column in distances.T]
        result[normaliser] = {
            "judged": int((~np.isnan(errors)).sum()),
            "nme": _mean(measured),
            "nme_of_each_landmark": dict(zip(LANDMARKS, map(_mean, each), strict=True)),
            "auc": area_under_curve(errors, threshold),
            "failure_rate": failure_rate(errors, threshold),
        }
        if resamples and measured.size:
            draws = np.random.default_rng(seed).choice(measured, (resamples, measured.size))
            result[normaliser]["interval_95"] = percentile_interval(draws.mean(axis=1))
    return result


def _judged(errors):
    errors = np.asarray(errors, np.float64)
    return errors[~np.isnan(errors)]


def _mean(values):
    return float(values.mean()) if values.size else float("nan")
