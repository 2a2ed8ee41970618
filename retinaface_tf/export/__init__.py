"""Export a model to other formats, and verify that the exported file finds the same faces.

Every exported file takes pixels and returns faces in pixels. `exports/README.md` describes inputs and outputs.

The folder and the public function have one name: this module can be called, so that `retinaface_tf.export(model, path)`
and `from retinaface_tf.export.tflite import export_tflite` both work, whichever comes first.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from retinaface_tf.common.types import PathLike
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.inference.formats import FORMATS, format_of, import_object

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


def export(model: RetinaFace | str, path: PathLike, format: str | None = None, **options: Any) -> Path:
    """Export a detector, with decoding and NMS, to another format.

    Args:
        model: `RetinaFace`, or the name of a preset.
        path: path of the file, or of the folder for a SavedModel.
        format: "saved_model", "tflite" or "onnx". `None` chooses by the suffix of `path`; a path without a suffix is a
            SavedModel.
        options: fields of `ExportOptions` (`size`, `score_threshold`, `nms_threshold`, `max_detections` ...), and
            options of the format: `quantize` and `calibration` for "tflite", `replace` for "saved_model".

    Returns:
        The path of the exported file or folder.

    Raises:
        ValueError: if the format is unknown, or an option is out of range.
        TypeError: if the format does not have an option.
        OSError: if the file can't be written.
    """
    chosen = FORMATS.get(str(format)) if format is not None else format_of(path)
    if chosen is None and format is None and not Path(path).suffix:
        chosen = FORMATS["saved_model"]
    if chosen is None:
        received = f"path={str(path)!r}" if format is None else f"format={format!r}"
        raise ValueError(f"`format` must be one of {list(FORMATS)}. Received: {received}")
    common = {field.name: options.pop(field.name) for field in fields(ExportOptions) if field.name in options}
    if isinstance(model, str):
        from retinaface_tf.detector import RetinaFace

        common.setdefault("preset", model)
        model = RetinaFace.from_preset(model)
    written: Path = import_object(chosen.exporter)(model, path, ExportOptions(**common), **options)
    return written


def __getattr__(name: str) -> Any:
    if name in ("verify", "Certificate"):
        return import_object(f"retinaface_tf.export.certificate:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _CallableModule(ModuleType):
    def __call__(self, model: RetinaFace | str, path: PathLike, format: str | None = None, **options: Any) -> Path:
        return export(model, path, format, **options)

    __call__.__doc__ = export.__doc__


sys.modules[__name__].__class__ = _CallableModule
