"""Parity certificates: compare an exported model with the Python model on the same pixels."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.export.metadata import count_operations, measure, weights_sha256
from retinaface_tf.export.options import MAX_DETECTIONS
from retinaface_tf.export.parity import TOLERANCES, Parity
from retinaface_tf.image.letterbox import fit
from retinaface_tf.image.loading import load_image
from retinaface_tf.inference.detections import Detections
from retinaface_tf.inference.formats import format_of, newest_version, titles
from retinaface_tf.inference.predictor import Detector

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


CANDIDATES = 5000  # as many as `RetinaFace.detect` passes to NMS
SAMPLE = "samples/astronaut.jpg"
LISTED = 10  # most faces that only one has that are listed, each way
WIDTH = 100


@dataclass(frozen=True)
class Certificate:
    """The result of `verify`; `str` gives it as text.

    Attributes:
        facts: dict, JSON-ready: differences, faces lost and gained, tolerance, latency, operations, "failures".
    """

    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the artifact finds the same faces, within the tolerance of its precision."""
        return bool(self.facts["passed"])

    def to_json(self) -> str:
        """The facts as JSON text."""
        return json.dumps(self.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def __str__(self) -> str:
        return to_text(self.facts)


def verify(
    artifact: PathLike,
    model: RetinaFace | str | None = None,
    photos: Iterable[ImageSource] | Mapping[str, ImageSource] | None = None,
    *,
    labels: Callable[..., dict[str, Any]] | None = None,
    read: Callable[[Any], np.ndarray] = load_image,
    runs: int = 20,
) -> Certificate:
    """Compare the faces that an exported file finds with those that its model finds.

    Args:
        artifact: path of an exported SavedModel, `.tflite` or `.onnx`.
        model: `RetinaFace`, name of a preset, or path of a `.keras` file. `None`: the preset that is named in the
            metadata of the file.
        photos: list of photos (see `load_image`), or a dict of name to photo. `None`: the bundled photos.
        labels: function that computes average precision. It takes two dicts of name to `Detections`, `python` and
            `artifact`, and returns a dict of floats for each. `None`: no average precision.
        read: function that decodes a photo. For labels in pixels without EXIF rotation, use
            `evaluation.runner.read_image`.
        runs: int. Timed calls of each model, alternating, on the first photo.

    Returns:
        `Certificate`: `passed` says whether the faces are the same, `facts` holds the measured differences, and `str`
        gives the text that the command prints.

    Raises:
        ValueError: if `artifact` is not an exported file, there is no photo, or `model` is needed.
        OSError: if a file can't be read.
        ImportError: if the runtime is not installed; the message names the extra to install.
    """
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1. Received: runs={runs}")
    chosen = format_of(artifact)
    if chosen is None:
        raise ValueError(f"{artifact}: not an artifact. Expected {titles()}")
    detector = Detector(chosen.open(artifact))
    if model is None:
        model = detector.metadata.get("preset")
        if model is None:
            raise ValueError(f"{artifact}: made from your own model. Name that model: --model PATH, in Python `model`")
    if isinstance(model, str):
        with tensorflow_needed("comparing an artifact with its model"):
            from retinaface_tf.detector import RetinaFace

        model = RetinaFace.from_preset(model)
    if photos is None:
        photos = bundled_photos()
    named = photos.items() if isinstance(photos, Mapping) else ((str(photo), photo) for photo in photos)
    pixels = ((name, read(photo)) for name, photo in named)
    path = Path(artifact) if chosen.suffix else newest_version(artifact, chosen.marker)
    return Certificate(compare(path or Path(artifact), chosen.name, detector, model, pixels, labels=labels, runs=runs))


def compare(
    artifact: Path,
    kind: str,
    detector: Any,
    model: RetinaFace,
    photos: Iterable[tuple[str, np.ndarray]],
    *,
    labels: Callable[..., dict[str, Any]] | None = None,
    runs: int = 20,
) -> dict[str, Any]:
    """The facts of a certificate, for a detector and a model that are already open.

    Both run once on the same pixels, without the close-up pass. If the artifact has a fixed size, photos are resized
    to it first.

    Args:
        artifact: Path of the file or, of a SavedModel, of the version's folder.
        kind: "saved_model", "tflite" or "onnx".
        detector: the artifact opened: an object with `metadata` and `detect`.
        model, labels, runs: as in `verify`; the `Detections` that `labels` gets have low scores in them.
        photos: iterable of (name, uint8 array `[H, W, 3]`); at least one.

    Returns:
        dict, JSON-ready; "passed" and "failures" are the judgment.
    """
    metadata = detector.metadata
    precision = (metadata["quantization"] or {}).get("scheme", "fp32")
    tolerance = TOLERANCES.get(precision, TOLERANCES["int8"])
    options = {name: metadata[name] for name in ("score_threshold", "nms_threshold", "max_detections")}
    parity = Parity(tolerance, options["score_threshold"], options["max_detections"])
    # An artifact with little room is compared with all that Python finds.
    in_full = {**options, "max_detections": max(options["max_detections"], MAX_DETECTIONS)}
    first, room_full, found = None, [], {"python": {}, "artifact": {}}
    for name, photo in photos:
        box = fit(photo, metadata["input"]["size"] or photo.shape[:2], metadata["fill"])
        first = box.canvas if first is None else first
        in_python = model.detect(box.canvas, resize=None, close_ups=False, **in_full)
        in_artifact = detector.detect(box.canvas, resize=None, close_ups=False, **options)
        if len(in_artifact) >= options["max_detections"]:
            room_full.append({"photo": name, "python": len(in_python), "artifact": len(in_artifact)})
        parity.add(name, in_python, in_artifact, candidates=partial(_candidates, model, box.canvas, options, tolerance))
        if labels is not None:
            low = _low(metadata, options)
            for key, each in (("python", model), ("artifact", detector)):
                found[key][name] = _restored(each.detect(box.canvas, resize=None, close_ups=False, **low), box)
    if first is None:
        raise ValueError("no photo to compare on")

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
        "room_full": room_full,
        "tolerance": vars(tolerance) | {},
        "average_precision": precision_of_both,
        "latency": _measure_latency(model, detector, first, options, runs),
        "operations": count_operations(artifact, kind),
        "failures": failures,
        "passed": not failures,
    }


def _candidates(model, canvas, options, tolerance):
    """All that Python finds before the suppression, of faces and just below: `Detections`."""
    lowest = max(0.0, options["score_threshold"] - tolerance.score)
    return model.detect(canvas, lowest, nms_threshold=1.0, max_detections=CANDIDATES, resize=None, close_ups=False)


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


def _measure_latency(model, detector, photo, options, runs):
    """Median times of alternating calls, so that a busy machine affects both equally. The first calls are not timed."""
    seconds = {"python": [], "artifact": []}
    for number in range(runs + 1):
        for name, each in (("python", model), ("artifact", detector)):
            start = time.perf_counter()
            each.detect(photo, resize=None, close_ups=False, **options)
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


def bundled_photos() -> dict[str, np.ndarray]:
    """The photos of a certificate where none are named: dict name -> uint8 array `[H, W, 3]`.

    The bundled photo at many sizes: one face, four, a crowd of 300, a face cut by the frame, large, small and none.
    """
    with files("retinaface_tf").joinpath(SAMPLE).open("rb") as file:
        photo = Image.open(file).convert("RGB")
    whole = photo.resize((320, 320))
    mosaic = Image.new("RGB", (640, 480), (123, 117, 104))
    for number, side in enumerate((320, 224, 160, 256)):
        mosaic.paste(photo.resize((side, side)), (320 * (number % 2), 240 * (number // 2)))
    face = photo.crop((158, 30, 298, 198)).resize((40, 48))
    crowd = Image.new("RGB", (880, 780), (123, 117, 104))
    for number in range(300):  # 43 and 51 pixels apart, so that they lie differently on the network's cells
        crowd.paste(face, (10 + 43 * (number % 20), 10 + 51 * (number // 20)))
    pictures = {
        "512x512": photo,
        "320x320": whole,
        "mirrored 512x512": photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "odd sides 333x251": photo.crop((90, 0, 423, 251)),
        "cut by the frame 240x320": photo.crop((200, 20, 440, 340)),
        "four faces 640x480": mosaic,
        "crowd 880x780": crowd,
        "large face 700x840": photo.crop((158, 30, 298, 198)).resize((700, 840), Image.Resampling.BICUBIC),
        "small 96x96": photo.resize((96, 96)),
        "no face 200x150": photo.crop((300, 350, 500, 500)),
    }
    return {name: np.asarray(picture) for name, picture in pictures.items()}


def to_text(facts: dict[str, Any]) -> str:
    """The certificate of a dict of facts, as `verify` makes it: str, with a newline at the end."""
    rows = [
        ("artifact", f"{facts['artifact']} ({facts['kind']}, {facts['bytes'] / 1e6:.2f} MB)"),
        ("sha256", facts["sha256"]),
        ("made by", f"{facts['made_by']} from {facts['preset'] or 'a model'}, weights {facts['weights_sha256']}"),
        ("precision", _precision(facts)),
        ("image size", "any" if facts["input_size"] is None else "{1}x{0}".format(*facts["input_size"])),
        ("compared on", _faces(facts)),
        *_differences(facts),
        *_faces_of_one(facts, "lost"),
        *_faces_of_one(facts, "gained"),
        *_swapped(facts),
        *_room_full(facts),
        *_average_precision(facts),
        ("latency", _latency(facts)),
        ("operations", ", ".join(f"{name} {count}" for name, count in facts["operations"].items())),
        ("verdict", _verdict(facts)),
    ]
    wrapped = (textwrap.wrap(value, WIDTH - 15, break_on_hyphens=False) or [""] for _, value in rows)
    lines = []
    for (name, _), (first, *rest) in zip(rows, wrapped, strict=True):
        lines += [f"{name:<14} {first}".rstrip(), *(" " * 15 + line for line in rest)]
    return "\n".join(["Parity certificate", *lines]) + "\n"


def _precision(facts):
    others = {k: v for k, v in (facts["quantization"] or {}).items() if k != "scheme"}
    return facts["precision"] + "".join(f"; {key} {value}" for key, value in others.items())


def _faces(facts):
    faces = facts["faces"]
    return (
        f"{facts['photos']} photos, score threshold {facts['score_threshold']:g}: {faces['python']} faces in Python, "
        f"{faces['artifact']} in the artifact, {faces['matched']} in both"
    )


def _differences(facts):
    largest, allowed = facts["largest_difference"], facts["tolerance"]
    pixels = "" if allowed["pixels"] is None else f" (allowed {allowed['pixels']:g})"
    score = "" if allowed["pixels"] is None else f" (allowed {allowed['score']:g})"
    shift = f"{100 * facts['mean_landmark_shift']:.3g} % of the face size"
    return [
        ("boxes", f"largest difference {largest['boxes_px']:.3g} px{pixels}"),
        ("scores", f"largest difference {largest['scores']:.3g}{score}"),
        ("landmarks", f"largest difference {largest['landmarks_px']:.3g} px{pixels}"),
        ("", f"mean shift {shift} (allowed {100 * allowed['landmark_shift']:g} %)"),
    ]


def _faces_of_one(facts, which):
    faces = facts[which]
    rows = [(f"faces {which}", str(len(faces)) if faces else "none")]
    for face in faces[:LISTED]:
        where = ", ".join(f"{value:.1f}" for value in face["box"])
        near = "near the score threshold" if face["near_threshold"] else "not near the score threshold"
        rows.append(("", f"score {face['score']:.4f}, {near}: {face['photo']}, box {where}"))
    if len(faces) > LISTED:
        rows.append(("", f"and {len(faces) - LISTED} more"))
    return rows


def _swapped(facts):
    """Faces for which another candidate with nearly the same score was chosen. They are listed in the certificate."""
    faces = facts["swapped"]
    if not faces:
        return []
    rows = [("swapped", f"{len(faces)} by NMS, which kept another candidate with nearly the same score")]
    for face in faces[:LISTED]:
        where = ", ".join(f"{value:.1f}" for value in face["box"])
        scores = f"scores {face['score']:.4f} and {face['candidate_score']:.4f} in Python"
        off = f"{face['boxes_px']:.3g} px off, landmarks {face['landmarks_px']:.3g} px"
        rows.append(("", f"{scores}, {off}: {face['photo']}, box {where}"))
    if len(faces) > LISTED:
        rows.append(("", f"and {len(faces) - LISTED} more"))
    return rows


def _room_full(facts):
    """Photos with at least as many faces as the exported model can return."""
    return [
        ("maximum faces", f"{photo['artifact']} faces in the artifact, {photo['python']} in Python: {photo['photo']}")
        for photo in facts["room_full"]
    ]


def _verdict(facts):
    swapped = f", {len(facts['swapped'])} swapped by NMS" if facts["swapped"] else ""
    return f"passed: the same faces{swapped}" if facts["passed"] else "failed: " + "; ".join(facts["failures"])


def _average_precision(facts):
    both = facts["average_precision"]
    if both is None:
        return []
    pairs = [f"{name} {both['python'][name]:.4f} -> {value:.4f}" for name, value in both["artifact"].items()]
    return [("AP", f"Python -> artifact: {', '.join(pairs)}")]


def _latency(facts):
    times = facts["latency"]
    return (
        f"{times['artifact_ms']:.2f} ms, in Python {times['python_ms']:.2f} ms, ratio {times['ratio']:.2f} "
        f"(medians of {times['runs']} alternating calls, {times['image']})"
    )
