"""A model as a `.tflite` file: one image in, faces out, in operations that LiteRT has built in."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.export.calibration import CalibrationPhotos, read_calibration_photos
from retinaface_tf.export.detector_graph import DetectorGraph, prepare_for_export
from retinaface_tf.export.int8 import convert_int8
from retinaface_tf.export.metadata import describe, to_json
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite_metadata import JSON_FILE, LABELS_FILE, metadata_buffer
from retinaface_tf.export.tflite_model import add_signatures, attach_buffer, convert, to_bytes

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


QUANTIZATIONS = (None, "fp16", "dynamic", "int8")
STATIC_TOP_K = 2000  # where shapes are static, each candidate costs time in every image
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
        model: `RetinaFace`.
        path: of the file; replaced if it exists.
        options: `ExportOptions`. With a size, `top_k` is at most `STATIC_TOP_K`.
        quantize: `None` for 32-bit floats, "fp16", "dynamic" or "int8".
        calibration: for "int8", folder or list of photos, or what `read_calibration_photos` made of them.

    Returns:
        `path`.

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
        top_k = min(options.top_k, STATIC_TOP_K, model.anchor_generator.count(*options.size))
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
