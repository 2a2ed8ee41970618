"""A model as a `.tflite` file: one image of one size in, faces out, in operations that LiteRT has built in."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.export.calibration import calibration_photos
from retinaface_tf.export.converter import convert
from retinaface_tf.export.fixed_graph import FixedGraph
from retinaface_tf.export.int8 import convert_int8
from retinaface_tf.export.metadata import describe, to_json
from retinaface_tf.export.options import STATIC_MAX_DETECTIONS
from retinaface_tf.export.plain import plain_network
from retinaface_tf.export.signatures import add_signatures
from retinaface_tf.export.tflite_metadata import JSON_FILE, LABELS_FILE, metadata_buffer

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions


QUANTIZATIONS = (None, "fp16", "dynamic", "int8")
TOP_K, CANDIDATES_EACH = 1000, 5  # shapes are static: each candidate of the suppression costs time in every image


def export_tflite(
    model: RetinaFace,
    path: PathLike,
    options: ExportOptions,
    quantize: str | None = None,
    calibration: PathLike | Sequence[ImageSource] | None = None,
) -> Path:
    """Write a model as a TFLite file of one image size.

    The file has two signatures, which `signatures.py` explains: `serving_default` of `images` uint8 `[1, H, W, 3]`
    alone, with the thresholds of `options`, and `detect`, which takes them. Both return, in this order, `boxes`
    `[1, K, 4]`, `scores` `[1, K]`, `landmarks` `[1, K, 5, 2]` and `count` `[1]`, as `DetectionDecoder` does.

    Args:
        model: `RetinaFace`.
        path: of the file; replaced if it exists.
        options: `ExportOptions` with a size. `top_k` is at most `TOP_K`, or
            `CANDIDATES_EACH` times `max_detections`.
        quantize: `None` for 32-bit floats, "fp16", "dynamic" or "int8".
        calibration: for "int8", folder or list of photos.

    Returns:
        `path`.

    Raises:
        ValueError: without a size, for an unknown `quantize`, for `calibration` without "int8".
        OSError: if the file can't be written.
    """
    if quantize not in QUANTIZATIONS:
        raise ValueError(f"`quantize` must be one of {list(QUANTIZATIONS)}. Received: quantize={quantize!r}")
    if calibration is not None and quantize != "int8":
        raise ValueError(f"`calibration` is for quantize='int8' alone. Received: quantize={quantize!r}")
    if options.size is None:
        raise ValueError("TFLite has static shapes: `size` must be (height, width). Received: size=None")
    height, width = options.size
    anchors = model.anchor_generator.count(height, width)
    most = options.max_detections or STATIC_MAX_DETECTIONS
    top_k = min(options.top_k, max(TOP_K, CANDIDATES_EACH * most), anchors)
    options = replace(options, top_k=top_k, max_detections=min(most, top_k))

    graph = FixedGraph(plain_network(model), height, width, top_k, min(most, top_k))
    flatbuffer, quantization = _convert(graph, quantize, calibration, fill=[round(mean) for mean in model.pixel_mean])
    thresholds = {"score_threshold": options.score_threshold, "nms_threshold": options.nms_threshold}
    add_signatures(flatbuffer, {"windows": [[0, 0, width, height]], **thresholds})
    metadata = describe(model, options, fixed=("max_detections",), quantization=quantization)
    _attach(flatbuffer, "TFLITE_METADATA", metadata_buffer(metadata))
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer))
    files = {LABELS_FILE: metadata["label"] + "\n", JSON_FILE: to_json(metadata)}
    with atomic_write(path, "wb") as file:
        file.write(_append_files(content, files))
    return Path(path)


def _convert(graph, quantize, calibration, fill):
    """The converted model and what the metadata say of its numbers: `ModelT`, dict or `None`."""
    if quantize == "int8":
        photos = calibration_photos(calibration, graph.size, fill)
        neck = "the pyramid, the context modules, " if graph.network.deformable else ""  # see `FixedGraph.seam`
        return convert_int8(graph, photos), {
            "scheme": "int8",
            "calibration_photos": len(photos),
            "float": f"the first layers, {neck}the heads and the decoding",
        }

    def prepare(converter):
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "fp16":
            converter.target_spec.supported_types = [tf.float16]

    return convert(graph.whole(), prepare), quantize and {"scheme": quantize}


def _attach(flatbuffer, name, content):
    """Put bytes into a model's buffers under a name."""
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = name.encode(), len(flatbuffer.buffers)
    flatbuffer.buffers.append(buffer)
    flatbuffer.metadata = [*(flatbuffer.metadata or []), entry]


def _append_files(content, files):
    """A model with files behind it, as TFLite's metadata has them: what is a model to LiteRT is a zip to `unzip`."""
    whole = io.BytesIO(content)
    whole.seek(0, os.SEEK_END)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without a date, so that the same model is the same bytes
    return whole.getvalue()
