"""An `.onnx` file in OpenVINO. No TensorFlow."""

from pathlib import Path

from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference import artifact as metadata
from retinaface_tf.inference.fixed_size import at_size
from retinaface_tf.inference.onnx import as_inputs

PREPARED = 300  # operations; 90 new sizes took 380 MB without the limit and 30 MB with it, in the same time


class OpenVINOModel:
    """An artifact of `export_onnx` in OpenVINO, on the CPU, in float32.

    Args, attributes and errors as those of `ONNXModel`.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        try:
            import onnx
            import openvino
        except ImportError as error:
            raise ImportError(
                f"{path}: OpenVINO runs it with the packages openvino and onnx, and {error.name} is missing. "
                f"Install them: {install_hint('openvino')}"
            ) from None
        try:
            graph = onnx.load_model_from_string(Path(path).read_bytes())
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
            core = openvino.Core()
            self.compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", config)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{path}: OpenVINO can't open it ({lines[0][:200]})") from None
        size = self.metadata["input"]["size"]
        self.run = self._run if size is None else at_size(self._run, size, self.metadata["fill"])

    def _run(self, images, windows, score_threshold, nms_threshold, max_detections):
        outputs = self.compiled(as_inputs(images, windows, score_threshold, nms_threshold, max_detections))
        return {name: outputs[name] for name in self.names}


def _require_inputs(graph):
    """Take their defaults from the inputs: OpenVINO makes constants of inputs that have one."""
    inputs = {value.name for value in graph.graph.input}
    tensors = [tensor for tensor in graph.graph.initializer if tensor.name not in inputs]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(tensors)
