"""The metadata of an artifact: one dict for all formats, stored as JSON inside it, with its operations and size."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import retinaface_tf
from retinaface_tf import presets
from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.types import LANDMARK_NAMES, PathLike
from retinaface_tf.inference.artifact import FORMAT, LIBRARY

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions


OUTPUTS = (
    {"name": "boxes", "dtype": "float32", "shape": ["N", "K", 4], "unit": "xyxy pixels of the image, inside it"},
    {"name": "scores", "dtype": "float32", "shape": ["N", "K"], "unit": "probability, descending, 0 beyond the count"},
    {"name": "landmarks", "dtype": "float32", "shape": ["N", "K", 5, 2], "unit": "x and y, pixels of the image"},
    {"name": "count", "dtype": "int32", "shape": ["N"], "unit": "faces"},
)
VERTICES = {"name": "vertices", "dtype": "float32", "unit": "x and y in pixels, z in pixels away from the camera"}


def describe(
    model: RetinaFace,
    options: ExportOptions,
    *,
    one_image: bool = False,
    fixed: Sequence[str] = (),
    quantization: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The metadata of an artifact, JSON-ready. The keys are the contract between `export` and `inference`.

    Args:
        model: `RetinaFace`, as trained: not folded, for its weights' sha256 to be that of the preset.
        options: `ExportOptions`.
        one_image: bool. Whether it takes a single image of any size at a time; with a size it always does.
        fixed: which of "score_threshold", "nms_threshold" and "max_detections" the artifact does not take as inputs.
            Its runtime can keep fewer faces than it returns, but not more.
        quantization: `None`, or a dict, JSON-ready, with at least "scheme": "fp16", "dynamic" or "int8".
    """
    config = model.get_config()
    size = None if options.size is None else list(options.size)
    rows, columns = size or ("H", "W")
    return {
        "format": FORMAT,
        "library": LIBRARY,
        "version": retinaface_tf.__version__,
        "preset": options.preset,
        "architecture": config,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "layout": "NHWC",
            "shape": [1 if one_image or size else "N", rows, columns, 3],
            "size": size,
            "channels": "RGB",
            "range": [0, 255],
            "mean": config["pixel_mean"],  # for information: the graph itself subtracts and divides
            "std": config["pixel_std"],
        },
        "outputs": [dict(output) for output in OUTPUTS] + _vertices(model),
        "landmark_order": list(LANDMARK_NAMES),
        "label": "face",
        "score_threshold": float(options.score_threshold),
        "nms_threshold": float(options.nms_threshold),
        "max_detections": options.max_detections,
        "top_k": int(options.top_k),
        "fixed": list(fixed),
        "fill": [round(mean) for mean in config["pixel_mean"]],
        "largest_anchor": max(map(max, config["anchors"].values())),
        "anchors": config["anchors"],
        "variances": config["variances"],
        "quantization": quantization,
        "weights_sha256": weights_sha256(model),
    }


def _vertices(model):
    return [] if model.topology is None else [{**VERTICES, "shape": ["N", "K", len(model.topology), 3]}]


def weights_sha256(model: RetinaFace) -> str:
    """The sha256 of a model's weights as a preset's file holds them: str."""
    return hashlib.sha256(presets.weights_bytes(model.variables)).hexdigest()


def to_json(metadata: Mapping[str, Any]) -> str:
    """The text that goes into the artifact: the same dict gives the same bytes."""
    return json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"


def count_operations(path: PathLike, kind: str) -> dict[str, int]:
    """How often each operation occurs in the graph and its functions, the most frequent first.

    `path` is that of the artifact; of a SavedModel the folder with `saved_model.pb`.
    """
    names = {"saved_model": _saved_model, "tflite": _tflite, "onnx": _onnx}[kind](Path(path))
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def measure(path: PathLike) -> tuple[int, str]:
    """(bytes, sha256) of a file, or of a folder: of its files' names and checksums, in the order of their names."""
    path = Path(path)
    if path.is_file():
        content = path.read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}\n" for file in files
    ]
    return sum(file.stat().st_size for file in files), hashlib.sha256("".join(lines).encode()).hexdigest()


def _saved_model(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in (meta.graph_def for meta in content.meta_graphs):
        yield from (node.op for node in graph.node)
        for function in graph.library.function:
            yield from (node.op for node in function.node_def)


def _tflite(path):
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        from tensorflow.lite.python import schema_py_generated as schema
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.operatorCodes[operator.opcodeIndex]
            # The first field held 127 operators; files keep it for old readers.
            name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
            yield f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" else name


def _onnx(path):
    try:
        import onnx
    except ImportError:
        raise ImportError(f"counting an ONNX file's operations needs: {install_hint('onnx')}") from None
    model = onnx.load(path, load_external_data=False)
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
