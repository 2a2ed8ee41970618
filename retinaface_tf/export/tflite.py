"""Export a model as a `.tflite` file: one image in, faces out, in built-in LiteRT operations, with metadata."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flatbuffers
import tensorflow as tf

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.export.detector_graph import DetectorGraph, prepare_for_export
from retinaface_tf.export.int8 import CalibrationPhotos, convert_int8, read_calibration_photos
from retinaface_tf.export.metadata import describe, to_json
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite_model import add_signatures, attach_buffer, convert, to_bytes

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


LABELS_FILE, JSON_FILE = "labels.txt", "retinaface.json"
IDENTIFIER = b"M001"
NUMBERS = {"i8": "PrependInt8Slot", "u8": "PrependUint8Slot", "i32": "PrependInt32Slot", "u32": "PrependUint32Slot"}
# Members of enumerations and unions of the schema.
DESCRIPTIONS_FILE, VALUE_LABELS_FILE = 1, 3
IMAGE, BOUNDING_BOX, RGB, BOUNDARIES, PIXELS = 2, 3, 1, 1, 1
NORMALIZATION, SCORE_THRESHOLDING = 1, 3


def metadata_buffer(metadata: Mapping[str, Any]) -> bytes:
    """The flatbuffer for a model's `TFLITE_METADATA`, of what `metadata.describe` returns."""
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


QUANTIZATIONS = (None, "fp16", "dynamic", "int8")
WHOLE_IMAGE = (0.0, 0.0, 1e9, 1e9)  # windows are cut at the image's edges


def export_tflite(
    model: RetinaFace,
    path: PathLike,
    options: ExportOptions,
    quantize: str | None = None,
    calibration: PathLike | Sequence[ImageSource] | CalibrationPhotos | None = None,
) -> Path:
    """Write a model as a TFLite file.

    Without a size the file takes an image of any: LiteRT is told by `resize_tensor_input`, or by calling a signature.
    The file has two signatures, which `tflite_model.add_signatures` explains: `serving_default` of `images` uint8
    `[1, H, W, 3]` alone, with the thresholds of `options`, and `detect`, which takes `windows` and the thresholds,
    without a size also `max_detections`. Both return, in this order, `boxes` `[1, K, 4]`, `scores` `[1, K]`,
    `landmarks` `[1, K, 5, 2]` and `count` `[1]`, as `DetectionDecoder` does.

    Args:
        options: `ExportOptions`. With a size, `top_k` is at most the number of anchors.
        quantize: `None` for 32-bit floats, "fp16", "dynamic" or "int8".
        calibration: for "int8", folder or list of photos, or what `read_calibration_photos` made of them.

    Raises:
        ValueError: for an unknown `quantize`, for `calibration` without "int8".
        OSError: if the file can't be written.
    """
    if quantize not in QUANTIZATIONS:
        raise ValueError(f"`quantize` must be one of {list(QUANTIZATIONS)}. Received: quantize={quantize!r}")
    if calibration is not None and quantize != "int8":
        raise ValueError(f"`calibration` is for quantize='int8' alone. Received: quantize={quantize!r}")
    defaults: dict[str, Any] = {
        "windows": [WHOLE_IMAGE],
        "score_threshold": options.score_threshold,
        "nms_threshold": options.nms_threshold,
    }
    fixed: tuple[str, ...] = ()
    if options.size is None:
        defaults["max_detections"] = options.max_detections
    else:
        fixed = ("max_detections",)
        top_k = min(options.top_k, model.anchor_generator.count(*options.size))
        options = replace(options, top_k=top_k, max_detections=min(options.max_detections, top_k))

    graph = DetectorGraph(prepare_for_export(model), options.size, options.top_k, options.max_detections)
    flatbuffer, quantization = _convert(graph, quantize, calibration, fill=[round(mean) for mean in model.pixel_mean])
    add_signatures(flatbuffer, defaults)
    metadata = describe(model, options, one_image=True, fixed=fixed, quantization=quantization)
    attach_buffer(flatbuffer, "TFLITE_METADATA", metadata_buffer(metadata))
    files = {LABELS_FILE: metadata["label"] + "\n", JSON_FILE: to_json(metadata)}
    with atomic_write(path, "wb") as file:
        file.write(_append_files(to_bytes(flatbuffer), files))
    return Path(path)


def _convert(graph, quantize, calibration, fill):
    """The converted model and what the metadata say of its numbers: `ModelT`, dict or `None`."""
    if quantize == "int8":
        given = calibration
        if not isinstance(given, CalibrationPhotos):
            given = read_calibration_photos(given, graph.size, fill)
        neck = "the pyramid, the context modules, " if graph.network.deformable else ""  # see `split_points`
        return convert_int8(graph, given.photos), {
            "scheme": "int8",
            "calibration_photos": len(given.photos),
            "calibration_photos_found": given.found,
            "calibration_photos_unreadable": len(given.unreadable),
            "float": f"the first layers, {neck}the heads and the decoding",
        }

    def prepare(converter):
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "fp16":
            converter.target_spec.supported_types = [tf.float16]

    return convert(graph.whole(), prepare), quantize and {"scheme": quantize}


def _append_files(content, files):
    """A model with files behind it, as TFLite's metadata has them: what is a model to LiteRT is a zip to `unzip`."""
    whole = io.BytesIO(content)
    whole.seek(0, os.SEEK_END)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without a date, so that the same model is the same bytes
    return whole.getvalue()
