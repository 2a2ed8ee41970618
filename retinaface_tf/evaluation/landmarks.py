"""Landmark errors in units of the face's size, and the detections that they are measured on."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.annotations.text import read_text
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import NOT_LABELED, PathLike
from retinaface_tf.evaluation.protocols import detect_with
from retinaface_tf.evaluation.runner import get_protocol, read_image
from retinaface_tf.evaluation.widerface import percentile_interval
from retinaface_tf.geometry.overlap import pairwise_iou

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.protocols import Protocol


NORMALIZERS = ("inter-ocular", "box", "diagonal")
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def face_size(landmarks: np.ndarray, boxes: np.ndarray | None, normalizer: str) -> np.ndarray:
    """The length that errors are divided by: float64 `[N]`, pixels; NaN where the size is 0 or unknown.

    Args:
        landmarks: Float array `[N, 5, 2]`, ground truth, pixels.
        boxes: Float array `[N, 4]`, `xyxy` pixels, or None; only `inter-ocular` does without.
        normalizer: `inter-ocular`, the distance of the eyes; `box`, sqrt(width * height), as AFLW is reported;
            `diagonal`, of the box.
    """
    if normalizer not in NORMALIZERS:
        raise ValueError(f"`normalizer` must be one of {list(NORMALIZERS)}. Received: normalizer={normalizer!r}")
    if normalizer == "inter-ocular":
        landmarks = np.asarray(landmarks, np.float64)
        size = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=-1)
    else:
        if boxes is None:
            raise ValueError(f"the normalizer {normalizer!r} needs face boxes, and this ground truth has none")
        sides = np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]
        sides = np.where((sides > 0).all(axis=1, keepdims=True), sides, np.nan)
        size = np.sqrt(sides.prod(axis=1)) if normalizer == "box" else np.hypot(sides[:, 0], sides[:, 1])
    return np.where(size > 0, size, np.nan)


def landmark_distances(predicted: np.ndarray, truth: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Normalized distance of each landmark: float64 `[N, 5]`.

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

    Returns:
        Dict `faces`, `found`, `threshold` and, for every normalizer that the data allows, `nme` (mean over the found
        faces), `nme_of_each_landmark`, `auc`, `failure_rate` (missed faces fail) and, with `resamples`, `interval_95`.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    found = ~np.isnan(predicted).any(axis=(1, 2))
    result: dict[str, Any] = {"faces": len(truth), "found": int(found.sum()), "threshold": threshold}
    for normalizer in NORMALIZERS if boxes is not None else NORMALIZERS[:1]:
        distances = landmark_distances(predicted, truth, face_size(truth, boxes, normalizer))
        errors = mean_errors(distances)
        measured = errors[np.isfinite(errors)]
        each = [column[np.isfinite(column)] for column in distances.T]
        result[normalizer] = {
            "judged": int((~np.isnan(errors)).sum()),
            "nme": _mean(measured),
            "nme_of_each_landmark": dict(zip(LANDMARKS, map(_mean, each), strict=True)),
            "auc": area_under_curve(errors, threshold),
            "failure_rate": failure_rate(errors, threshold),
        }
        if resamples and measured.size:
            draws = np.random.default_rng(seed).choice(measured, (resamples, measured.size))
            result[normalizer]["interval_95"] = percentile_interval(draws.mean(axis=1))
    return result


def _judged(errors):
    errors = np.asarray(errors, np.float64)
    return errors[~np.isnan(errors)]


def _mean(values):
    return float(values.mean()) if values.size else float("nan")


def choose_face(detections: Any, landmarks: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
    """Landmarks of the detection on an annotated face: float64 `[5, 2]`, NaN if no detection qualifies.

    A detection qualifies if its box holds the mean of the annotated landmarks. Of several, the one with the highest IoU
    with the annotated box (or the tight box of the landmarks) is taken; never the one with the nearest landmarks, which
    would let the truth choose its own score.
    """
    known = landmarks[~np.isnan(landmarks).any(axis=1)]
    boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
    nothing = np.full((5, 2), np.nan)
    if len(known) == 0 or len(boxes) == 0:
        return nothing
    center = known.mean(axis=0)
    holds = ((boxes[:, :2] <= center) & (center <= boxes[:, 2:])).all(axis=1)
    if not holds.any():
        return nothing
    box = np.concatenate([known.min(axis=0), known.max(axis=0)]) if box is None else box
    iou = np.where(holds, pairwise_iou(boxes, box)[:, 0], -1)
    return np.asarray(detections.landmarks, np.float64)[np.argmax(iou)]


def predict_landmarks(
    detect: Callable[[np.ndarray], Any] | None,
    annotations: Annotations,
    photos: Mapping[str, PathLike] | None,
    path: PathLike,
    *,
    protocol: str | Protocol = "original",
    progress: bool = True,
) -> np.ndarray:
    """Landmarks for every annotated face; rows are appended to a CSV file as they come, and read back when it exists.

    Args:
        detect: Callable from a uint8 RGB image to an object with `boxes`, `scores`, `landmarks`; or None to only read.
        annotations: `Annotations` of faces with landmarks, of `require_landmarks`.
        photos: Dict file -> path of each photo; not needed without `detect`.
        path: CSV file: image file, number of the face in the ground truth, ten coordinates (empty if not found).

    Returns:
        Float64 `[N, 5, 2]`; NaN for faces not found.

    Raises:
        ValueError: The file is of another ground truth, or, without `detect`, incomplete.
    """
    path, protocol = Path(path), get_protocol(protocol)
    files = [annotations.files[photo] for photo in annotations.image]  # of each face
    known = _read_predictions(path, files) if path.exists() else {}
    rows = {}
    for row, file in enumerate(files):
        rows.setdefault(file, []).append(row)
    landmarks, boxes = annotations.landmarks_or_nan(), annotations.boxes if annotations.has_boxes else None
    todo = [file for file in rows if any(row not in known for row in rows[file])]
    if (detect is None or photos is None) and todo:
        raise ValueError(f"{path} has no prediction for {todo[0]!r} ({len(todo)} photos): name a model and --images")
    path.parent.mkdir(parents=True, exist_ok=True)
    from tqdm import tqdm

    with path.open("a", newline="", encoding="utf-8") as output:
        for file in tqdm(todo, unit="image", desc="detect", file=sys.stderr, disable=not progress or not todo):
            assert detect is not None and photos is not None  # with anything to do
            found = detect_with(protocol, detect, read_image(photos[file]))
            for row in rows[file]:
                points = choose_face(found, landmarks[row], None if boxes is None else boxes[row])
                cells = [""] * 10 if np.isnan(points).any() else [repr(float(value)) for value in points.ravel()]
                if row not in known:
                    csv.writer(output).writerow([file, row, *cells])
                    known[row] = points
            output.flush()
    return np.array([known[row] for row in range(len(files))]).reshape(-1, 5, 2)


def require_landmarks(annotations: Annotations) -> Annotations:
    """The faces with at least one landmark: the others can't be measured.

    Raises:
        ValueError: There are none, or some faces have a box and some have none.
    """
    labeled = (annotations.visible != NOT_LABELED).any(axis=1)
    if not labeled.any():
        raise ValueError(f"no face of the {len(annotations)} photos has landmarks: nothing to measure")
    annotations = annotations.select(labeled)
    without = np.isnan(annotations.boxes).any(axis=1)
    if without.any() and not without.all():
        file = annotations.files[annotations.image[without.argmax()]]
        raise ValueError(f"some faces have a box and some have none, such as one in {file!r}")
    return annotations


def _read_predictions(path, files):
    """Row -> `[5, 2]`. The last line may have been cut off by an interruption: it is dropped from the file."""
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with atomic_write(path) as file:
            file.write(whole)
    known = {}
    lines = csv.reader(io.StringIO(whole, newline=""))
    for number in itertools.count(1):
        try:
            if (cells := next(lines, None)) is None:
                break
            file, row = cells[0], int(cells[1])
            points = np.array([float(cell) if cell else np.nan for cell in cells[2:]]).reshape(5, 2)
            if np.isinf(points).any():
                raise ValueError("not finite")
        except (IndexError, ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {number}: expected file, number and ten coordinates") from error
        if not (0 <= row < len(files) and files[row] == file):
            raise ValueError(f"{path}, line {number}: face {row} of {file!r} is not in this ground truth")
        known[row] = points
    return known
