"""The facts of `verify` as a page of text."""

import json
import textwrap
from typing import Any

LISTED = 10  # so many faces that only one has are listed, each way
WIDTH = 100


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


def to_json(facts: dict[str, Any]) -> str:
    """The facts as JSON text."""
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
    shift = f"{100 * facts['mean_landmark_shift']:.3g} % of the face's size"
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
        near = "near the lowest kept" if face["near_threshold"] else "not near the lowest kept"
        rows.append(("", f"score {face['score']:.4f}, {near}: {face['photo']}, box {where}"))
    if len(faces) > LISTED:
        rows.append(("", f"and {len(faces) - LISTED} more"))
    return rows


def _swapped(facts):
    """Faces for which another candidate of nearly the same score was chosen: they are told, not hidden."""
    faces = facts["swapped"]
    if not faces:
        return []
    rows = [("swapped", f"{len(faces)} by suppression: another candidate, of nearly the same score in Python")]
    for face in faces[:LISTED]:
        where = ", ".join(f"{value:.1f}" for value in face["box"])
        scores = f"scores {face['score']:.4f} and {face['candidate_score']:.4f} in Python"
        off = f"{face['boxes_px']:.3g} px off, landmarks {face['landmarks_px']:.3g} px"
        rows.append(("", f"{scores}, {off}: {face['photo']}, box {where}"))
    if len(faces) > LISTED:
        rows.append(("", f"and {len(faces) - LISTED} more"))
    return rows


def _verdict(facts):
    swapped = f", {len(facts['swapped'])} swapped by suppression" if facts["swapped"] else ""
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
        f"{times['artifact_ms']:.2f} ms beside {times['python_ms']:.2f} ms in Python, ratio {times['ratio']:.2f} "
        f"(medians of {times['runs']} calls in turns, {times['image']})"
    )
