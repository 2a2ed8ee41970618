"""The rows that a batch run writes: one for each photo, its faces inside. The package pyarrow, imported where used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retinaface_tf.inference.report import POINTS

if TYPE_CHECKING:
    import pyarrow

    from retinaface_tf import Detections


FACE_FIELDS = ("score", "x1", "y1", "x2", "y2", *(f"{point}_{axis}" for point in POINTS for axis in "xy"))


def schema() -> pyarrow.Schema:
    """The `pyarrow.Schema` of every part.

    file: name of the photo, unique within a run. width, height: pixels as a person sees it, null where it failed.
    faces: list, the surest first, empty for a photo without; each a struct of float32: score, box corners, landmarks,
    in pixels of the photo. error: the line that says why it failed, else null.
    """
    import pyarrow as pa

    face = pa.struct([(name, pa.float32()) for name in FACE_FIELDS])
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            ("width", pa.int32()),
            ("height", pa.int32()),
            pa.field("faces", pa.list_(face), nullable=False),
            ("error", pa.string()),
        ]
    )


def row(file: str, detections: Detections | None = None, error: str | None = None) -> dict[str, Any]:
    """One photo as a dict for `schema`: of `Detections`, or, without them, of an error."""
    if detections is None:
        return {"file": file, "width": None, "height": None, "faces": [], "error": error}
    numbers = zip(detections.scores, detections.boxes, detections.landmarks.reshape(-1, 10), strict=True)
    faces = [dict(zip(FACE_FIELDS, (score, *box, *points), strict=True)) for score, box, points in numbers]
    return {"file": file, "width": detections.width, "height": detections.height, "faces": faces, "error": None}
