"""Detections of many photos as one JSON list or one CSV table.

JSON: a list with an object for each photo, `{"file", "width", "height", "faces": [{"box": [x1, y1, x2, y2], "score",
"landmarks": [[x, y] x 5]}]}`; a photo that failed has `"error"` in place of `"faces"`, one that may have more faces
`"truncated": true`. `retinaface-tf detect` adds the files that it wrote, `"picture"`, `"crops"` and `"obj"`, and
`"settings"`: model, runtime, resizing and thresholds. CSV: a row for each face, and one with empty columns for a photo
without faces or with an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retinaface_tf.common.json_files import Int, ListOf, Number, Optional, read_json
from retinaface_tf.common.types import LANDMARK_NAMES, PathLike

if TYPE_CHECKING:
    from retinaface_tf.inference.detections import Detections


COLUMNS = (
    *("file", "width", "height", "face", "score", "x1", "y1", "x2", "y2"),
    *(f"{point}_{axis}" for point in LANDMARK_NAMES for axis in "xy"),
    "error",
)
FACE = {"box": ListOf(Number(), 4), "score": Number(0, 1), "landmarks": ListOf(ListOf(Number(), 2), 5)}
SIZE = {"width": Optional(Int(0)), "height": Optional(Int(0))}
REPORT = ListOf(
    ({"file": str, "faces": ListOf(FACE), "settings": Optional(dict), **SIZE}, {"file": str, "error": str, **SIZE})
)


def file_name(path: object) -> str:
    """A path as reports have it: str. Linux allows bytes in names that are no UTF-8: they come as `\\udcff`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def entry(
    file: PathLike, detections: Detections | None = None, error: str | None = None, pose: bool = False
) -> dict[str, Any]:
    """The report entry of one photo, of its `Detections` or of the line that says why it failed.

    With `pose` each face gets its `head_pose`: [yaw, pitch, roll], degrees.
    """
    if detections is not None and error is None:
        reported = {"file": file_name(file), **detections.to_dict()}
        if pose:
            for face, angles in zip(reported["faces"], detections.head_poses().tolist(), strict=True):
                face["head_pose"] = [round(angle, 2) for angle in angles]
        return reported
    return {"file": file_name(file), "width": None, "height": None, "error": error}


def read_report(path: PathLike) -> list[dict[str, Any]]:
    """The entries of a JSON report.

    Raises:
        OSError: It can't be read.
        ValueError: It is no report of `retinaface-tf detect`.
    """
    entries = read_json(path, REPORT)
    return [{"width": None, "height": None, **one} for one in entries]


def to_json(entries: Sequence[dict[str, Any]]) -> str:
    """The JSON text of a list of entries, one photo a line."""
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in entries)
    return f"[\n{lines}\n]\n" if entries else "[]\n"


def to_csv(entries: Sequence[dict[str, Any]]) -> str:
    """The CSV text of a list of entries, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in entries:
        photo = [one["file"], one["width"], one["height"]]
        for number, face in enumerate(one.get("faces", [])):
            points = [value for point in face["landmarks"] for value in point]
            writer.writerow([*photo, number, face["score"], *face["box"], *points, ""])
        if not one.get("faces"):
            writer.writerow([*photo, *[""] * (len(COLUMNS) - len(photo) - 1), one.get("error", "")])
    return text.getvalue()
