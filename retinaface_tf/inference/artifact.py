"""The metadata that an artifact carries, read and checked. No TensorFlow."""

import json
from typing import Any

from retinaface_tf.common.types import PathLike

FORMAT = 1
NEEDED = ("score_threshold", "nms_threshold", "max_detections", "fixed", "fill", "largest_anchor", "input")


def parse(text: str | bytes | None, path: PathLike) -> dict[str, Any]:
    """The metadata of an artifact.

    Args:
        text: str or bytes of JSON, or `None` where the artifact has none.
        path: of the artifact, for the messages.

    Returns:
        dict, as `retinaface_tf.export.metadata.describe` made it.

    Raises:
        ValueError: one line, if this is no artifact of `retinaface-tf export`, or one of a newer version.
    """
    try:
        metadata = json.loads(text) if text is not None else None
    except (ValueError, UnicodeDecodeError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("library") != "retinaface_tf":
        raise ValueError(f"{path}: not an artifact of `retinaface-tf export` (it lacks the metadata of retinaface_tf)")
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: its metadata is of format {metadata.get('format')}, made by retinaface_tf "
            f"{metadata.get('version')}; this version reads format {FORMAT}"
        )
    missing = [key for key in NEEDED if key not in metadata]
    if not missing and not (isinstance(metadata["input"], dict) and "size" in metadata["input"]):
        missing = ["the size of the input"]
    if missing:
        raise ValueError(f"{path}: its metadata is damaged: {', '.join(missing)} missing")
    return metadata
