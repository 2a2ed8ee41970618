"""Open a model of any kind for its `detect`: a preset, a `.keras` file, or an exported artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_tf import presets
from retinaface_tf.common.imports import import_tensorflow, tensorflow_needed
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference import formats
from retinaface_tf.inference.predictor import Detector

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace

KERAS = "keras"  # the runtime of presets and .keras files


def expected() -> str:
    """The kinds of model that `load` opens, for messages."""
    return f"a preset's name, a .keras file, {formats.titles()}"


def load(path: PathLike, *, threads: int | None = None, runtime: str | None = None) -> RetinaFace | Detector:
    """Open a model, whatever it is, for its `detect`.

    Args:
        path: a preset's name or folder, or the path of a `.keras` file, of a SavedModel (the folder of a version, or
            the folder of its versions, of which the newest is used), of a `.tflite` or an `.onnx` file.
        threads: int or `None` for the runtime's own choice. TensorFlow has one number for the whole process: it can be
            set only before TensorFlow's first operation.
        runtime: "onnxruntime" or "openvino", of an `.onnx`; `None` is ONNX Runtime there.

    Returns:
        `RetinaFace` for a preset or a `.keras` file, else `Detector`. Both have the same `detect`.

    Raises:
        ValueError: for what is none of these, naming what is expected; for an artifact of something else.
        OSError: if it can't be read.
        ImportError: naming the extra to install, if the runtime is missing.
    """
    kind = kind_of(path)
    format_ = formats.FORMATS.get(kind)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"`threads` must be a positive integer. Received: threads={threads!r}")
    if runtime is not None and runtime not in (format_.runtimes if format_ else (KERAS,)):
        raise ValueError(
            f'`runtime` must be "onnxruntime" or "openvino", for an .onnx. Received: {runtime!r} for {path}'
        )
    if threads is not None and (format_ is None or not format_.takes_threads):
        with tensorflow_needed(f"{path}: this model"):
            _set_tensorflow_threads(threads)
    if format_ is not None:
        with tensorflow_needed(f"{path}: {format_.title}"):
            return Detector(format_.open(path, threads, runtime))
    with tensorflow_needed(f"{path}: a {'preset' if kind == 'preset' else '.keras file'}"):
        from retinaface_tf.detector import RetinaFace

    return RetinaFace.from_preset(str(path))


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


def needs_tensorflow(path: PathLike) -> bool:
    """Whether opening this model imports TensorFlow. Raises as `kind_of`."""
    format_ = formats.FORMATS.get(kind_of(path))
    return format_ is None or format_.needs_tensorflow
