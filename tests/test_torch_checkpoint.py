"""PyTorch's files are read exactly, and nothing that they say is executed or makes memory grow."""

import builtins
import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
from torch_files import WRITERS, View, write_zip

from retinaface_tf.presets.torch_checkpoint import CheckpointError, read_torch_checkpoint

ARRAY = np.arange(24, dtype="float32").reshape(2, 3, 4)


@pytest.mark.parametrize("form", WRITERS)
def test_tensors_come_out_as_they_went_in(form, tmp_path):
    base = np.arange(12, dtype="float32")
    content = collections.OrderedDict(
        weight=ARRAY,
        transposed=base.reshape(3, 4).T,  # strides other than C's
        part=base.reshape(3, 4)[1:, 2],  # an offset into a storage that another tensor shares
        double=np.array([1.5, 2.5]),
        half=np.array([0.5], "float16"),
        steps=np.array(7),
        empty=np.zeros((0, 3), "float32"),
    )
    WRITERS[form](tmp_path / "model.pth", content)
    read = read_torch_checkpoint(tmp_path / "model.pth")
    assert read.keys() == content.keys()
    for name, array in content.items():
        np.testing.assert_array_equal(read[name], array)
    assert read["double"].dtype == read["half"].dtype == np.float32
    assert read["steps"].dtype == np.int64


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_nested_state_dicts_and_module_prefixes(form, key, tmp_path):
    WRITERS[form](tmp_path / "model.pth.tar", {"epoch": 3, "arch": "x", key: {"module.a.weight": ARRAY}})
    assert list(read_torch_checkpoint(tmp_path / "model.pth.tar")) == ["a.weight"]


class Attack:
    """Calls `function` when it is unpickled in the ordinary way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("attack", ["system", "eval", "getattr"])
def test_a_malicious_pickle_is_refused_and_not_executed(form, attack, tmp_path):
    mark = tmp_path / "executed"
    attacks = {
        "system": Attack(os.system, f"touch {mark}"),
        "eval": Attack(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Attack(getattr, os, "system"),
    }
    content = {"state_dict": {"a": ARRAY}, "extra": attacks[attack]}
    if attack == "getattr":
        content["extra"] = Attack(getattr, collections.OrderedDict, "clear")
    WRITERS[form](tmp_path / "model.pth", content)
    with pytest.raises(CheckpointError, match=r"refused. Save a plain state dict") as caught:
        read_torch_checkpoint(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_attack_of_the_test_above_would_work(tmp_path):
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Attack(os.system, f"touch {mark}")))
    assert mark.exists()


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_line(form, keep, tmp_path):
    path = tmp_path / "model.pth"
    WRITERS[form](path, {"a": ARRAY, "b": ARRAY + 1})
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointError) as caught:
        read_torch_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hello\n", b"\x00" * 500, bytes(range(256)) * 4, b"\x80\x02}q\x00."])
def test_other_files_are_one_line(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth: "):
        read_torch_checkpoint(tmp_path / "x.pth")


def test_another_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match=r"not of torch.save"):
        read_torch_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{}, {"a": 1}, [ARRAY], {"state_dict": {"lr": 0.1}}])
def test_a_file_without_named_tensors_is_refused(content, tmp_path):
    WRITERS["zip"](tmp_path / "x.pth", content)
    with pytest.raises(CheckpointError, match="no state dict"):
        read_torch_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (0, (-2,), (1,))],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(form, offset, shape, strides, tmp_path):
    WRITERS[form](tmp_path / "x.pth", {"a": View(np.zeros(4, "float32"), offset, shape, strides)})
    with pytest.raises(CheckpointError, match="reaches outside its storage"):
        read_torch_checkpoint(tmp_path / "x.pth")


def test_a_tensor_that_repeats_its_storage_is_refused(tmp_path):
    """A stride of 0 turns 16 bytes into 4 GB."""
    write_zip(tmp_path / "x.pth", {"a": View(np.zeros(4, "float32"), 0, (1 << 15, 1 << 15), (0, 0))})
    with pytest.raises(CheckpointError, match="much more memory than the file"):
        read_torch_checkpoint(tmp_path / "x.pth")
    write_zip(tmp_path / "x.pth", {"a": View(np.zeros(4, "float32"), 0, (5, 5), (0, 0))})
    with pytest.raises(CheckpointError, match="repeats the 4 numbers of its storage"):
        read_torch_checkpoint(tmp_path / "x.pth")


def test_many_tensors_on_one_storage_are_refused(tmp_path):
    storage = np.zeros(10_000, "float32")
    write_zip(tmp_path / "x.pth", {f"a{i}": View(storage, 0, (10_000,), (1,)) for i in range(30)})
    assert (tmp_path / "x.pth").stat().st_size < 50_000  # the 40 KB once, where the tensors would take 1.2 MB
    with pytest.raises(CheckpointError, match="much more memory than the file"):
        read_torch_checkpoint(tmp_path / "x.pth")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    write_zip(tmp_path / "x.pth", {"a": np.zeros(4, "float32")})
    with zipfile.ZipFile(tmp_path / "x.pth") as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, bytes(30_000_000) if "/data/" in name else content)
    assert (tmp_path / "y.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"compressed, which torch.save never does"):
        read_torch_checkpoint(tmp_path / "y.pth")


def test_a_pickle_that_asks_for_a_large_memo_is_refused(tmp_path):
    """`LONG_BINPUT 2^31` would allocate 32 GB."""
    (tmp_path / "x.pth").write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x7f.")
    with pytest.raises(CheckpointError, match="asks for more memory than it has contents"):
        read_torch_checkpoint(tmp_path / "x.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(OSError, match="a named pipe"):
        read_torch_checkpoint(tmp_path / "x.pth")
