"""Run an `.onnx` file in ONNX Runtime or OpenVINO. No TensorFlow."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference import artifact as metadata
from retinaface_tf.inference.tiles import at_size

ERRORS_ONLY = 3
FLOAT, INT32 = 1, 6  # ONNX's TensorProto.DataType


def _message(number: int, *parts: bytes) -> bytes:
    """Field `number` of a protobuf message: a message or text of fewer than 128 bytes."""
    content = b"".join(parts)
    return bytes([number << 3 | 2, len(content)]) + content


def _input(name: str, dtype: int, rank: int = 0) -> bytes:
    """A graph's input: ONNX's ValueInfoProto. Its sides have no names."""
    shape = _message(2, *[_message(1)] * rank)
    return _message(11, _message(1, name.encode()), _message(2, _message(1, bytes([1 << 3, dtype]), shape)))


# In an artifact the thresholds are constants, unless exported with optional inputs. Protobuf merges messages that
# follow each other: these bytes before those of a file make inputs of the constants, whose values remain as defaults.
INPUTS = _message(
    7,
    _input("windows", FLOAT, rank=2),
    _input("score_threshold", FLOAT),
    _input("nms_threshold", FLOAT),
    _input("max_detections", INT32),
)


class ONNXModel:
    """An artifact of `export_onnx` in ONNX Runtime, on the CPU.

    Args:
        path: of the file.
        threads: int, or `None` for ONNX Runtime's own choice: one a core.
        spinning: bool. Whether its threads spin while they wait, which is quicker where nobody else wants the cores.

    Attributes:
        metadata: dict, as `retinaface_tf.export.metadata.describe` made it.

    Raises:
        ImportError: if onnxruntime is missing; the message names the extra.
        OSError: if the file can't be read.
        ValueError: one line, if it is damaged or no artifact of ours.
    """

    def __init__(self, path: PathLike, threads: int | None = None, spinning: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ImportError(
                f"{path}: an .onnx file runs in ONNX Runtime. Install it: {install_hint('onnxruntime')}"
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY  # it would warn that `INPUTS` are no constants
        options.enable_mem_pattern = False  # a plan of the memory for each size, of which there is no end
        # Threads that spin while they wait take the cores of others: on a busy machine more than twice the time.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if threads is not None:
            options.intra_op_num_threads = threads
        self.path, self.threads, self.spinning = os.fspath(path), threads, spinning
        self._process, self._options = os.getpid(), options
        try:
            self.session = _open(path, options)
        except OSError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            reason = first_line(error, 200)
            raise ValueError(f"{path}: not an ONNX file that ONNX Runtime can open ({reason})") from None
        properties = self.session.get_modelmeta().custom_metadata_map
        self.metadata = metadata.parse(properties.get("retinaface_tf"), path)
        size = self.metadata["input"]["size"]
        self.run = self._run if size is None else at_size(self._run, size, self.metadata["fill"])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (os.path.abspath(self.path), self.threads, self.spinning)  # noqa: PTH100 - keeps links

    def __repr__(self) -> str:
        return f"ONNXModel({self.path!r})"

    def _run(self, images, windows, score_threshold, nms_threshold, max_detections):
        if os.getpid() != self._process:
            # After a fork a session waits for ever for its threads, which stayed in the parent. It is replaced, and
            # kept: to delete it would wait as well.
            self._left_behind, self._process = self.session, os.getpid()
            self.session = _open(self.path, self._options)
        inputs = as_inputs(images, windows, score_threshold, nms_threshold, max_detections)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))


def _open(path, options):
    """A session on the CPU. `enable_fallback` would open a damaged file once more, and print about it."""
    import onnxruntime

    content = INPUTS + Path(path).read_bytes()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def as_inputs(
    images: np.ndarray, windows: np.ndarray, score_threshold: float, nms_threshold: float, max_detections: int
) -> dict[str, np.ndarray]:
    """The arguments of `run` as the graph's inputs: dict of arrays."""
    return {
        "images": np.ascontiguousarray(images),
        "windows": np.ascontiguousarray(windows, np.float32),
        "score_threshold": np.array(score_threshold, np.float32),
        "nms_threshold": np.array(nms_threshold, np.float32),
        "max_detections": np.array(max_detections, np.int32),
    }


PREPARED = 300  # operations; 90 new sizes took 380 MB without the limit and 30 MB with it, in the same time


class OpenVINOModel:
    """An artifact of `export_onnx` in OpenVINO, on the CPU, in float32.

    Args, attributes and errors as those of `ONNXModel`.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        try:
            import onnx
            import openvino  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{path}: OpenVINO runs it with the packages openvino and onnx, and {error.name} is missing. "
                f"Install them: {install_hint('openvino')}"
            ) from None
        try:
            graph = onnx.load_model_from_string(INPUTS + Path(path).read_bytes())
            properties = {entry.key: entry.value for entry in graph.metadata_props}
        except OSError:
            raise
        except Exception:  # protobuf's errors have no common base
            raise ValueError(f"{path}: not an ONNX file, or a damaged one") from None
        self.metadata = metadata.parse(properties.get("retinaface_tf"), path)
        self.names = [output.name for output in graph.graph.output]
        _require_inputs(graph)
        # Unless told otherwise OpenVINO computes in bfloat16 on CPUs that have it, 0.3 pixels off at VGA, and keeps
        # what it has prepared for every size that it has seen.
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "CPU_RUNTIME_CACHE_CAPACITY": PREPARED,
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            core = _core()
            self.compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", config)
        except Exception as error:
            raise ValueError(f"{path}: OpenVINO can't open it ({first_line(error, 200)})") from None
        size = self.metadata["input"]["size"]
        self.run = self._run if size is None else at_size(self._run, size, self.metadata["fill"])

    def _run(self, images, windows, score_threshold, nms_threshold, max_detections):
        outputs = self.compiled(as_inputs(images, windows, score_threshold, nms_threshold, max_detections))
        return {name: outputs[name] for name in self.names}


@functools.cache
def _core():
    """OpenVINO, once for the process, and for good.

    Its CPU plugin gives the thread a stack for signals, and takes it back when the last model of its `Core` has gone.
    With two of them, the second brings back the stack of the first, which is gone: the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def _require_inputs(graph):
    """Take their defaults from the inputs: OpenVINO makes constants of inputs that have one."""
    inputs = {value.name: value for value in graph.graph.input}  # with optional inputs, those are named twice
    del graph.graph.input[:]
    graph.graph.input.extend(inputs.values())
    tensors = [tensor for tensor in graph.graph.initializer if tensor.name not in inputs]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(tensors)
