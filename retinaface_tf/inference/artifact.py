"""Read and check the metadata of exported models, which `export` writes and the runtimes use.

`export.metadata.describe` writes it. A new key goes into `SCHEMA` first; other keys are refused.
"""

from __future__ import annotations

from typing import Any

from retinaface_tf.common.json_files import Choice, DictOf, Int, ListOf, Number, Optional, Text, check, parse_json
from retinaface_tf.common.types import PathLike

FORMAT = 1
LIBRARY = "retinaface_tf"
THRESHOLDS = ("score_threshold", "nms_threshold", "max_detections")
MAX_SIDE = 1 << 16  # pixels

SCHEMA = {
    "format": Int(low=1),
    "library": Text(),
    "version": Optional(Text()),
    "preset": Optional(Text()),
    "architecture": Optional({"dense": Optional({"topology": dict})}),
    "input": {
        "name": Optional(Text()),
        "dtype": Optional(Text()),
        "layout": Optional(Text()),
        "shape": Optional(list),
        "size": Optional(ListOf(Int(1, MAX_SIDE), length=2)),  # height and width, or null for any
        "channels": Optional(Text()),
        "range": Optional(ListOf(Number(), length=2)),
        "mean": Optional(ListOf(Number(), length=3)),
        "std": Optional(ListOf(Number(), length=3)),
    },
    "outputs": Optional(ListOf(dict)),
    "landmark_order": Optional(ListOf(Text(), length=5)),
    "label": Optional(Text()),
    "score_threshold": Number(0, 1),
    "nms_threshold": Number(0, 1),
    "max_detections": Int(1, 1 << 20),
    "top_k": Optional(Int(1, 1 << 20)),
    "fixed": ListOf(Choice(THRESHOLDS)),
    "fill": ListOf(Int(0, 255), length=3),
    "largest_anchor": Number(1, MAX_SIDE),
    "anchors": Optional(DictOf(ListOf(Number(low=0)))),
    "variances": Optional(ListOf(Number(low=0), length=2)),
    "quantization": Optional(dict),
    "weights_sha256": Optional(Text()),
}


def parse(text: str | bytes | None, path: PathLike) -> dict[str, Any]:
    """The metadata of the artifact at `path`, a dict that follows `SCHEMA`; `text` is its JSON, `None` if it has none.

    Raises:
        ValueError: one line, if this is no artifact of `retinaface-tf export`, one of a newer version, or damaged.
    """
    try:
        metadata = None if text is None else parse_json(text, where=path)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("library") != LIBRARY:
        raise ValueError(f"{path}: not an artifact of `retinaface-tf export` (it lacks the metadata of retinaface_tf)")
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: its metadata has format {_shown(metadata.get('format'))}, made by retinaface_tf "
            f"{_shown(metadata.get('version'))}; this version reads format {FORMAT}"
        )
    damaged = f"{path}: its metadata is damaged"
    check(metadata, SCHEMA, damaged)
    if "size" not in metadata["input"]:
        raise ValueError(f"{damaged}: `input` must have the size of the images, or null for any")
    for place, keys, known in (
        ("", metadata.keys(), SCHEMA.keys()),
        ("input.", metadata["input"].keys(), SCHEMA["input"].keys()),  # type: ignore[attr-defined]
    ):
        if unknown := sorted(keys - known):
            raise ValueError(f"{damaged}: it has an unknown key {_shown(place + unknown[0])}. Export it again")
    return metadata


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, (str, int, float)) else type(value).__name__
    return ascii(text)[1:-1][:60]
