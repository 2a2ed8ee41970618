"""The table of exported formats: suffix, runtimes, exporter, sizes, dependencies.

A further format is a runtime (a module beside this one), an exporter (a module in `export/`), and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from retinaface_tf.common.types import PathLike


@dataclass(frozen=True)
class Format:
    """One exported format.

    Attributes:
        name: str, as in `export(format=...)`, in the command `export NAME` and in certificates.
        title: str, for messages.
        suffix: of the file; empty for a folder.
        runtimes: name of a runtime -> its class, "module:class", imported on first use. The first is the default. The
            class takes (path, threads=None) and is what `predictor.Detector` wants. A name that ends with "-int8"
            opens the int8 file of a preset.
        exporter: "module:function" of (model, path, options, ...), imported on first use.
        sizes: "any" if an artifact takes images of every size, "one" if each takes its own size, "both" if the export
            chooses.
        needs_tensorflow: bool. Whether its runtimes import TensorFlow.
        takes_threads: bool. Whether its runtimes take a number of threads.
        divides_threads: bool. Whether calls at the same time divide the cores, where no number of threads is given.
        marker: of a folder, the file that it must hold.
    """

    name: str
    title: str
    suffix: str
    runtimes: Mapping[str, str]
    exporter: str
    sizes: str = "any"
    needs_tensorflow: bool = False
    takes_threads: bool = True
    divides_threads: bool = False
    marker: str = ""

    def is_at(self, path: Path) -> bool:
        """Whether this path has the form of the format: its suffix, or its marker in the folder."""
        if self.suffix:
            return path.suffix.lower() == self.suffix
        return path.is_dir() and newest_version(path, self.marker) is not None

    def open(self, path: PathLike, threads: int | None = None, runtime: str | None = None) -> Any:
        """The runtime of an artifact, opened; `runtime` as in `runtimes`, `None` for the default."""
        make = import_object(self.runtimes[runtime or next(iter(self.runtimes))])
        return make(path, threads=threads) if self.takes_threads else make(path)


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            "saved_model",
            "a SavedModel folder",
            suffix="",
            marker="saved_model.pb",
            runtimes={"tensorflow": "retinaface_tf.inference.saved_model:SavedModel"},
            exporter="retinaface_tf.export.saved_model:export_saved_model",
            needs_tensorflow=True,
            takes_threads=False,
        ),
        Format(
            "tflite",
            "a .tflite file",
            suffix=".tflite",
            runtimes={
                "litert": "retinaface_tf.inference.tflite:TFLiteModel",
                "litert-int8": "retinaface_tf.inference.tflite:TFLiteModel",
            },
            divides_threads=True,
            exporter="retinaface_tf.export.tflite:export_tflite",
            sizes="both",
        ),
        Format(
            "onnx",
            "an .onnx file",
            suffix=".onnx",
            runtimes={
                "onnxruntime": "retinaface_tf.inference.onnx:ONNXModel",
                "openvino": "retinaface_tf.inference.onnx:OpenVINOModel",
            },
            exporter="retinaface_tf.export.onnx:export_onnx",
            sizes="both",
        ),
    )
}


def format_of(path: PathLike) -> Format | None:
    """The format of a path by its form, without opening it; `None` for any other."""
    return next((each for each in FORMATS.values() if each.is_at(Path(path))), None)


def titles() -> str:
    """All formats for a message: "a SavedModel folder, a .tflite file or an .onnx file"."""
    *first, last = (each.title for each in FORMATS.values())
    return f"{', '.join(first)} or {last}" if first else last


def runtime_names() -> list[str]:
    """The names of all runtimes, in the order of the table."""
    return [name for each in FORMATS.values() for name in each.runtimes]


def import_object(place: str) -> Any:
    """Import the object that "module:name" names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def newest_version(folder: PathLike, marker: str = "saved_model.pb") -> Path | None:
    """The SavedModel in a folder, or in its numbered subfolder with the highest number: Path, or `None`."""
    folder = Path(folder)
    if (folder / marker).is_file():
        return folder
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and (p / marker).is_file()]
    return max(versions, key=lambda p: int(p.name), default=None)
