"""An artifact beside the model in Python, on the same pixels: what differs, and what each costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.export.metadata import weights_sha256
from retinaface_tf.export.operations import count_operations, measure
from retinaface_tf.export.parity import TOLERANCES, Parity
from retinaface_tf.image.letterbox import fit
from retinaface_tf.inference.detections import Detections

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.predictor import Detector


CANDIDATES = 5000  # as many as `RetinaFace.detect` looks at before the suppression


def verify(
    artifact: Path,
    kind: str,
    detector: Detector,
    model: RetinaFace,
    photos: Iterable[tuple[str, np.ndarray]],
    *,
    labels: Callable[..., dict[str, Any]] | None = None,
    runs: int = 20,
) -> dict[str, Any]:
    """The facts of a parity certificate.

    Both look once, without close-ups, at the same pixels: a photo is brought to the artifact's size first, if it has
    one.

    Args:
        artifact: Path of the file or, of a SavedModel, of the version's folder.
        kind: "saved_model", "tflite" or "onnx".
        detector: `Detector`, the artifact opened.
        model: `RetinaFace` to compare with.
        photos: iterable of (name, uint8 array `[H, W, 3]`); at least one.
        labels: function of two dicts name -> `Detections`, with low scores in them, to a dict of facts about the
            average precision of both, "python" and "artifact" each a dict of floats; or `None`.
        runs: int. Timed calls of each, taken in turns, on the first photo.

    Returns:
        dict, JSON-ready; "passed" and "failures" are the judgement.
    """
    metadata = detector.metadata
    precision = (metadata["quantization"] or {}).get("scheme", "fp32")
    tolerance = TOLERANCES.get(precision, TOLERANCES["int8"])
    options = {name: metadata[name] for name in ("score_threshold", "nms_threshold", "max_detections")}
    parity = Parity(tolerance, options["score_threshold"], options["max_detections"])
    first, found = None, {"python": {}, "artifact": {}}
    for name, photo in photos:
        box = fit(photo, metadata["input"]["size"] or photo.shape[:2], metadata["fill"])
        first = box.canvas if first is None else first
        in_python, in_artifact = (each.detect(box.canvas, close_ups=False, **options) for each in (model, detector))
        parity.add(name, in_python, in_artifact, candidates=partial(_candidates, model, box.canvas, options, tolerance))
        if labels is not None:
            low = _low(metadata, options)
            for key, each in (("python", model), ("artifact", detector)):
                found[key][name] = _restored(each.detect(box.canvas, close_ups=False, **low), box)
    if first is None:
        raise ValueError("no photo to verify on")

    precision_of_both = labels(**found) if labels is not None else None
    failures = _other_weights(metadata, model) + parity.failures() + _lost_precision(precision_of_both, tolerance)
    size, digest = measure(artifact)
    return {
        "artifact": str(artifact),
        "kind": kind,
        "bytes": size,
        "sha256": digest,
        "made_by": f"retinaface_tf {metadata.get('version')}",
        "precision": precision,
        "quantization": metadata["quantization"],
        "input_size": metadata["input"]["size"],
        "preset": metadata.get("preset"),
        "weights_sha256": metadata.get("weights_sha256"),
        **options,
        "photos": parity.photos,
        "faces": {"python": parity.python, "artifact": parity.artifact, "matched": parity.matched},
        "largest_difference": {
            "boxes_px": parity.boxes,
            "scores": parity.scores,
            "landmarks_px": parity.landmarks,
        },
        "mean_landmark_shift": parity.landmark_shift,
        "lost": parity.lost,
        "gained": parity.gained,
        "swapped": parity.swapped,
        "tolerance": vars(tolerance) | {},
        "average_precision": precision_of_both,
        "latency": _latency(model, detector, first, options, runs),
        "operations": count_operations(artifact, kind),
        "failures": failures,
        "passed": not failures,
    }


def _candidates(model, canvas, options, tolerance):
    """All that Python finds before the suppression, of faces and just below: `Detections`."""
    lowest = max(0.0, options["score_threshold"] - tolerance.score)
    return model.detect(canvas, lowest, nms_threshold=1.0, max_detections=CANDIDATES, close_ups=False)


def _low(metadata, options):
    """Thresholds for a precision-recall curve: the lowest that the artifact can."""
    fixed = "score_threshold" in metadata["fixed"]
    return options if fixed else {**options, "score_threshold": min(0.02, options["score_threshold"])}


def _restored(detections, box):
    boxes = box.restore(detections.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    return Detections(boxes, detections.scores, box.restore(detections.landmarks), detections.width, detections.height)


def _other_weights(metadata, model):
    if metadata.get("weights_sha256") == weights_sha256(model):
        return []
    return ["it was made from other weights than those of the model beside it"]


def _lost_precision(both, tolerance):
    """Lines about the subsets whose average precision falls too far."""
    if both is None:
        return []
    losses = {name: both["python"][name] - value for name, value in both["artifact"].items()}
    return [
        f"AP {name}: {loss:.4f} lost, allowed {tolerance.ap:g}" for name, loss in losses.items() if loss > tolerance.ap
    ]


def _latency(model, detector, photo, options, runs):
    """Medians of calls taken in turns, so that a noisy machine is unfair to neither; the first of each is not timed."""
    seconds = {"python": [], "artifact": []}
    for number in range(runs + 1):
        for name, each in (("python", model), ("artifact", detector)):
            start = time.perf_counter()
            each.detect(photo, close_ups=False, **options)
            if number:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "image": f"{photo.shape[1]}x{photo.shape[0]}",
        "runs": runs,
        "python_ms": round(1000 * medians["python"], 3),
        "artifact_ms": round(1000 * medians["artifact"], 3),
        "ratio": round(medians["artifact"] / medians["python"], 3),
    }
