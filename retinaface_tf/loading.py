"""Open any model for `detect`: a preset, a `.keras` file, or an exported model."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_tf import presets
from retinaface_tf.common.imports import import_tensorflow, tensorflow_needed
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference import formats
from retinaface_tf.inference.predictor import Detector

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.formats import Format

INT8 = "-int8"  # ends the name of a runtime that opens the int8 file of a preset
ALIASES = {"onnx": "onnxruntime", "tflite": "litert"}  # what else users call runtimes
KERAS = "keras"  # the runtime of presets and .keras files
DEFAULT_FORMAT = "tflite"  # the bundled artifact that runs a preset


def expected() -> str:
    """The kinds of model that `load` opens, for messages."""
    return f"a preset's name, a .keras file, {formats.titles()}"


def load(path: PathLike, *, threads: int | None = None, runtime: str | None = None) -> RetinaFace | Detector:
    """Open a preset, a `.keras` file or an exported model, to call `detect`.

    Args:
        path: name or folder of a preset, or path of a `.keras`, `.tflite` or `.onnx` file or of a SavedModel. For a
            folder with several versions of a SavedModel, the newest is used.
        threads: int, number of CPU threads; `None` lets the runtime choose. TensorFlow has one number for the whole
            process, which can only be set before TensorFlow runs its first operation.
        runtime: "litert", "litert-int8", "keras", "onnxruntime" (or "onnx"), "openvino", or "tensorflow" (for a
            SavedModel). "litert-int8" runs the int8 file of a preset, in about half the time on processors with
            instructions for it (AVX-512 VNNI, ARM dot product). `None` chooses by the model: "litert" for presets
            with weights, "keras" for other presets and `.keras` files, "onnxruntime" for `.onnx` files.

    Returns:
        `RetinaFace` for the runtime "keras", otherwise `Detector`. Both have the same method `detect`.

    Raises:
        ValueError: if `path` is not such a model, or the runtime cannot run it.
        OSError: if the file can't be read.
        ImportError: if the runtime is not installed; the message names the extra to install.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"`threads` must be a positive integer. Received: threads={threads!r}")
    format_, artifact, runtime = _choose(path, runtime)
    if threads is not None and (format_ is None or not format_.takes_threads):
        with tensorflow_needed(f"{path}: this model"):
            _set_tensorflow_threads(threads)
    if format_ is not None:
        with tensorflow_needed(f"{path}: {format_.title}"):
            opened = format_.open(artifact, threads, runtime)
        return Detector(opened, partial(load, path, threads=threads, runtime=runtime) if artifact != path else None)
    with tensorflow_needed(f"{path}: a Keras model"):
        from retinaface_tf.detector import RetinaFace

    return RetinaFace.from_preset(str(path))


def needs_tensorflow(path: PathLike, runtime: str | None = None) -> bool:
    """Whether opening this model imports TensorFlow. Raises as `load`."""
    format_ = _choose(path, runtime)[0]
    return format_ is None or format_.needs_tensorflow


def divides_threads(path: PathLike, runtime: str | None = None) -> bool:
    """Whether calls of this model at the same time divide the cores by themselves. Raises as `load`."""
    format_ = _choose(path, runtime)[0]
    return format_ is not None and format_.divides_threads


def identify(path: PathLike, runtime: str | None = None) -> dict[str, str]:
    """What the faces that a model finds depend on: its files and the runtime. Raises as `load`.

    Returns:
        Dict of "model", the name of a bundled preset or the sha256 of the files, and "runtime", which `None` becomes.
    """
    format_, artifact, runtime = _choose(path, runtime)
    runtime = runtime or (KERAS if format_ is None else next(iter(format_.runtimes)))
    if str(path) in presets.names():
        return {"model": str(path), "runtime": runtime}
    digest, place = hashlib.sha256(), Path(artifact)
    for file in [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()):
        digest.update(file.read_bytes())
    return {"model": f"sha256 {digest.hexdigest()[:16]}", "runtime": runtime}


def _choose(path: PathLike, runtime: str | None) -> tuple[Format | None, PathLike, str | None]:
    """The format (`None` for Keras), the artifact to open, and the runtime."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):  # "" would be the current folder
        raise ValueError(f"expected {expected()}. Received: {path!r}")
    kind = kind_of(path)
    runtime = ALIASES.get(str(runtime), runtime)
    known = [KERAS, *formats.runtime_names()]
    if runtime is not None and runtime not in known:
        raise ValueError(f"`runtime` must be one of {known}. Received: runtime={runtime!r}")
    if kind in formats.FORMATS:
        format_ = formats.FORMATS[kind]
        if runtime is not None and runtime not in format_.runtimes:
            raise ValueError(
                f"{path}: {format_.title} runs with {' or '.join(format_.runtimes)}. Received: runtime={runtime!r}"
            )
        return format_, path, runtime
    bundled = presets.artifacts(presets.load(path)) if kind == "preset" else {}
    if runtime is None:
        runtime = next(iter(formats.FORMATS[DEFAULT_FORMAT].runtimes)) if DEFAULT_FORMAT in bundled else KERAS
    if runtime == KERAS:
        return None, path, runtime
    name = next(each.name for each in formats.FORMATS.values() if runtime in each.runtimes)
    int8 = runtime.endswith(INT8)
    artifact = bundled.get(f"{name}_int8" if int8 else name)
    if artifact is None:
        kind_of_file = f"{'int8 ' if int8 else ''}{formats.FORMATS[name].suffix or name}"
        raise ValueError(
            f"{path}: {f'has no bundled {kind_of_file}' if kind == 'preset' else 'is a Keras model'}. Export one: "
            f"retinaface-tf export {name} {'--preset' if kind == 'preset' else '--model'} {path} --output FILE"
            f"{' --quantize int8 --calibration PHOTOS' if int8 else ''}, and open that. Received: runtime={runtime!r}"
        )
    return formats.FORMATS[name], presets.verified(artifact), runtime


def _set_tensorflow_threads(threads: int) -> None:
    import_tensorflow()
    import tensorflow as tf

    wanted = {"intra": threads, "inter": 1}
    for name, number in wanted.items():
        if getattr(tf.config.threading, f"get_{name}_op_parallelism_threads")() != number:
            try:
                getattr(tf.config.threading, f"set_{name}_op_parallelism_threads")(number)
            except RuntimeError:
                raise ValueError(
                    "`threads` of a TensorFlow model must be chosen before TensorFlow runs its first operation in this "
                    f"process. Received: threads={threads}"
                ) from None


def kind_of(path: PathLike) -> str:
    """The kind of a model, without opening it: "preset", "keras", or the name of an exported format.

    Raises:
        ValueError: for another suffix, a folder without a SavedModel, or an unknown name.
        FileNotFoundError: if there is no such file.
    """
    if str(path) in presets.names() or (Path(path) / presets.CARD).is_file():
        return "preset"
    path = Path(path)
    format_ = formats.format_of(path)
    if format_ is None and path.is_dir():
        raise ValueError(f"{path}: no SavedModel in this folder, nor in its numbered folders. Expected {expected()}")
    if format_ is not None or path.suffix.lower() == ".keras":
        if (format_ is None or format_.suffix) and not path.is_file():
            raise FileNotFoundError(f"{path}: no such file. Expected {expected()}")
        return KERAS if format_ is None else format_.name
    raise ValueError(f"{path}: unknown model. Expected {expected()}; presets: {', '.join(presets.names())}")
