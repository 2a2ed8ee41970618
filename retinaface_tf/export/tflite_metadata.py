"""Metadata in the TFLite schema (M001), which Android Studio, MediaPipe and Netron show, and files beside it.

The schema's own Python package wants an older NumPy than ours, so its few tables are built here. The
slots are those of `metadata_schema.fbs`, which only grows at the end.
"""

from collections.abc import Mapping
from typing import Any

import flatbuffers

LABELS_FILE, JSON_FILE = "labels.txt", "retinaface.json"
IDENTIFIER = b"M001"
NUMBERS = {"i8": "PrependInt8Slot", "u8": "PrependUint8Slot", "i32": "PrependInt32Slot", "u32": "PrependUint32Slot"}
# Members of enumerations and unions of the schema.
DESCRIPTIONS_FILE, VALUE_LABELS_FILE = 1, 3
IMAGE, BOUNDING_BOX, RGB, BOUNDARIES, PIXELS = 2, 3, 1, 1, 1
NORMALIZATION, SCORE_THRESHOLDING = 1, 3


def metadata_buffer(metadata: Mapping[str, Any]) -> bytes:
    """The flatbuffer for a model's `TFLITE_METADATA`.

    Args:
        metadata: dict as `metadata.describe` makes it.

    Returns:
        bytes.
    """
    b = _Builder()
    landmarks = ", ".join(metadata["landmark_order"])
    per_channel = [b.floats([value] * 3) for value in (0.0, 1.0, 255.0)]
    properties, photo = {0: ("i8", RGB)}, "RGB photo of any size, 0 to 255."
    if metadata["input"]["size"]:
        height, width = metadata["input"]["size"]
        properties[1] = b.table(2, {0: ("u32", width), 1: ("u32", height)})
        photo = (
            f"RGB photo of {width} x {height} pixels, 0 to 255. A smaller one goes into the upper left corner, the "
            f"rest filled with {tuple(metadata['fill'])}."
        )
    image = b.table(2, properties)
    # What the caller shall do to the pixels: nothing. The mean is subtracted inside.
    normalization = b.table(2, {0: per_channel[0], 1: per_channel[1]})
    pixels = b.tensor(
        "images",
        photo,
        content=b.table(3, {0: ("u8", IMAGE), 1: image}),
        process_units=[b.table(2, {0: ("u8", NORMALIZATION), 1: normalization})],
        stats=b.table(2, {0: per_channel[2], 1: per_channel[0]}),
    )
    box = b.table(3, {0: b.integers([0, 1, 2, 3]), 1: ("i8", BOUNDARIES), 2: ("i8", PIXELS)})
    labels = b.file(LABELS_FILE, "What is found", VALUE_LABELS_FILE)
    threshold = b.table(1, {0: ("f32", metadata["score_threshold"])})
    outputs = [
        b.tensor("boxes", "Left, top, right, bottom; pixels.", content=b.table(3, {0: ("u8", BOUNDING_BOX), 1: box})),
        b.tensor(
            "scores",
            "Probability of a face, descending; 0 beyond the count. Those below the threshold are left out already.",
            process_units=[b.table(2, {0: ("u8", SCORE_THRESHOLDING), 1: threshold})],
            files=[labels],
        ),
        b.tensor("landmarks", f"x and y of {landmarks}, left and right as seen in the photo; pixels."),
        b.tensor("count", "Number of faces."),
    ]
    if any(output["name"] == "vertices" for output in metadata["outputs"]):
        outputs.append(b.tensor("vertices", "x and y, and z away from the camera, of a face mesh's vertices; pixels."))
    subgraph = b.table(10, {0: b.text("serving_default"), 2: b.offsets([pixels]), 3: b.offsets(outputs)})
    facts = b.file(JSON_FILE, "All there is to know about this model, as JSON", DESCRIPTIONS_FILE)
    model = {
        0: b.text("RetinaFace"),
        1: b.text(f"Finds faces, with a score and five landmarks each. Preset: {metadata['preset']}."),
        2: b.text(metadata["version"]),
        3: b.offsets([subgraph]),
        4: b.text(metadata["library"]),
        6: b.offsets([facts]),
        7: b.text("1.0.0"),
    }
    return b.finish(b.table(8, model))


class _Builder:
    """Flatbuffer tables from dicts of slots: an offset, or a pair of a number's kind and the number."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1024)

    def text(self, text):
        return self.builder.CreateString(text)

    def offsets(self, offsets):
        return self._vector(4, offsets, self.builder.PrependUOffsetTRelative)

    def floats(self, values):
        return self._vector(4, values, self.builder.PrependFloat32)

    def integers(self, values):
        return self._vector(4, values, self.builder.PrependUint32)

    def _vector(self, size, values, prepend):
        self.builder.StartVector(size, len(values), size)
        for value in reversed(values):
            prepend(value)
        return self.builder.EndVector()

    def table(self, slots, fields):
        self.builder.StartObject(slots)
        for slot, value in fields.items():
            if not isinstance(value, tuple):
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            elif value[0] == "f32":
                self.builder.PrependFloat32Slot(slot, value[1], -1.0)  # -1: the default is written too
            else:
                getattr(self.builder, NUMBERS[value[0]])(slot, value[1], 0)
        return self.builder.EndObject()

    def file(self, name, description, kind):
        return self.table(5, {0: self.text(name), 1: self.text(description), 2: ("i8", kind)})

    def tensor(self, name, description, content=None, process_units=None, stats=None, files=None):
        fields = {0: self.text(name), 1: self.text(description), 3: content, 5: stats}
        fields |= {4: process_units and self.offsets(process_units), 6: files and self.offsets(files)}
        return self.table(7, {slot: value for slot, value in fields.items() if value is not None})

    def finish(self, root):
        self.builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self.builder.Output())
