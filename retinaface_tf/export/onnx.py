"""Export a model as an ONNX file for ONNX Runtime, OpenVINO and TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import require
from retinaface_tf.common.types import PathLike
from retinaface_tf.export import metadata
from retinaface_tf.export.detector_graph import prepare_for_export
from retinaface_tf.export.onnx_graph import HEADER, IR_VERSION, OPSET, convert_function, decoder_text, pixels_text
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.network.heads import FIRST, FIRST_HEADS, columns_of

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions


def export_onnx(model: RetinaFace, path: PathLike, options: ExportOptions, *, optional_inputs: bool = False) -> Path:
    """Write a model with preprocessing, decoding and NMS as one ONNX file (opset 17).

    Args:
        options: `ExportOptions`. With a `size`, the file takes one image of it at a time, and no shape before the
            suppression depends on the image: what TensorRT wants.
        optional_inputs: bool. Whether the file has further inputs that may be left out: `windows` float32 `[N, 4]`
            (default: the whole image), `score_threshold`, `nms_threshold` float32 and `max_detections` int32, scalars.
            ONNX Runtime prints a warning for each when it opens the file. `retinaface_tf.load` does not need them.

    Raises:
        ImportError: if tf2onnx is missing; the message names the extra.
        OSError: if it can't be written.
    """
    _require_tf2onnx()
    graph = build_onnx(model, options, optional_inputs)
    with atomic_write(path, "wb") as file:
        file.write(graph.SerializeToString(deterministic=True))
    return Path(path)


def build_onnx(model: RetinaFace, options: ExportOptions, optional_inputs: bool = False) -> Any:
    """What `export_onnx` writes: `onnx.ModelProto`, checked."""
    import onnx
    from onnx import compose, helper, numpy_helper, parser

    config, branch = model.get_config(), model.vertex_decoder
    anchors = None if options.size is None else AnchorGenerator(config["anchors"]).count(*options.size)
    pixels = parser.parse_model(pixels_text(config["pixel_mean"], config["pixel_std"]))
    network = _convert_network(prepare_for_export(model), options.size)
    embedding, texts = (0, ("", "", "")) if branch is None else (branch.embedding, branch.onnx_texts())
    decoder = parser.parse_model(
        decoder_text(config["variances"], options.top_k, anchors, config["cascade"], embedding, texts)
    )
    if branch is not None:
        _set_constants(decoder.graph, branch.onnx_weights())
    for name, part in (("pixels", pixels), ("decoder", decoder)):
        compose.add_prefix(part, f"{name}/", rename_inputs=False, rename_outputs=False, inplace=True)
    network.ir_version = IR_VERSION
    whole = compose.merge_models(pixels, network, io_map=[("pixels", "pixels")])
    same = [(name, name) for name in ("values", "anchors", "frame")]
    whole = compose.merge_models(whole, decoder, io_map=same, name="retinaface")
    if model.vertex_decoder is not None:
        whole = model.vertex_decoder.onnx_append(whole, lambda text: parser.parse_model(HEADER + text), _convert_part)

    defaults = {
        "windows": np.array([] if options.size is None else [0, 0, *options.size[::-1]], np.float32).reshape(-1, 4),
        "score_threshold": np.array(options.score_threshold, np.float32),
        "nms_threshold": np.array(options.nms_threshold, np.float32),
        "max_detections": np.array(options.max_detections, np.int32),
    }
    if optional_inputs:  # an input with an initializer of its name may be left out
        whole.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in defaults.items())
    else:
        _set_constants(whole.graph, defaults)
    if options.size is not None:
        _fix_shape(whole.graph.input[0], (1, *options.size, 3))
    del whole.opset_import[:]  # tf2onnx names a second set of operators, of which nothing is used
    whole.opset_import.append(helper.make_opsetid("", OPSET))
    whole.producer_name = "retinaface_tf"
    helper.set_model_props(whole, {"retinaface_tf": metadata.to_json(metadata.describe(model, options))})
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _convert_network(folded, size):
    """The convolutions and the anchors, by tf2onnx: `pixels` `[N, 3, H, W]` to `values` `[N, A, 16]` and `anchors`.

    A dense branch's embedding follows the sixteen values, and at the end, of a cascade, its first heads' box offsets.
    """
    import keras
    import tensorflow as tf

    anchor_generator = folded.anchor_generator
    heads = {
        prefix: [folded.get_layer(f"{prefix}heads_{level}").output for level in anchor_generator.sizes]
        for prefix in folded.stages
    }
    network = keras.Model(folded.get_layer("pixels").output, heads)
    shape = [None, None, None, 3] if size is None else [1, *size, 3]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="pixels")], autograph=False)
    def answer(pixels):
        anchors = anchor_generator(tf.shape(pixels)[1], tf.shape(pixels)[2])
        answers = {prefix: tf.concat(parts, axis=1) for prefix, parts in network(pixels, training=False).items()}
        values = answers[""]
        if FIRST in answers:
            values = tf.concat([values, answers[FIRST][..., columns_of(FIRST_HEADS)["box"]]], axis=2)
        return {"values": values, "anchors": anchors}

    return convert_function(answer, OPSET, nchw=["pixels"])


def _set_constants(graph, values):
    """Make constants of a graph's inputs of these names."""
    from onnx import numpy_helper

    inputs = [one for one in graph.input if one.name not in values]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def _convert_part(function):
    part = convert_function(function, OPSET, nchw=[])
    part.ir_version = IR_VERSION
    return part


def _require_tf2onnx():
    for module in ("onnx", "tf2onnx"):
        require(module, "onnx", "exporting to ONNX")


def _fix_shape(value, shape):
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
