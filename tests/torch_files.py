"""PyTorch checkpoints written by hand, in both of `torch.save`'s forms, for a machine without PyTorch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from contextlib import contextmanager

import numpy as np

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class View:
    """A tensor as PyTorch pickles it: a view into a storage, strides and offset in numbers."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.view = Storage(storage), (offset, shape, strides)

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (self.storage, *self.view, False, collections.OrderedDict())


def tensor(array):
    """The view that `array` is of its base."""
    base = array if array.base is None else array.base
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return View(base, start // base.itemsize, array.shape, tuple(s // base.itemsize for s in array.strides))


class Storage:
    def __init__(self, array):
        self.array = array


@contextmanager
def stub_torch():
    """Modules named torch, so that pickling writes the names that PyTorch's files have."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_):
        raise AssertionError("never called: only its name is pickled")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield torch
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]


def _pickled(content, torch, file, legacy):
    arrays = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            key = str(len(arrays))
            for known, array in arrays.items():
                if array is value.array:
                    key = known
            arrays[key] = value.array
            kind = getattr(torch, STORAGES[value.array.dtype.str[1:]])
            reference = ("storage", kind, key, "cuda:0", value.array.size)
            return (*reference, None) if legacy else reference

    Pickler(file, protocol=2).dump(content)
    return arrays


def wrap(content):
    """`content` with every NumPy array as a tensor."""
    if isinstance(content, dict):
        return type(content)((key, wrap(value)) for key, value in content.items())
    if isinstance(content, list):
        return [wrap(value) for value in content]
    return tensor(content) if isinstance(content, np.ndarray) else content


def write_legacy(path, content):
    with stub_torch() as torch, path.open("wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(head, file, protocol=2)
        arrays = _pickled(wrap(content), torch, file, legacy=True)
        pickle.dump(list(arrays), file, protocol=2)
        for array in arrays.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())


def write_zip(path, content):
    with stub_torch() as torch, zipfile.ZipFile(path, "w") as archive:
        buffer = io.BytesIO()
        arrays = _pickled(wrap(content), torch, buffer, legacy=False)
        archive.writestr("model/data.pkl", buffer.getvalue())
        archive.writestr("model/byteorder", "little")
        for key, array in arrays.items():
            archive.writestr(f"model/data/{key}", array.tobytes())


WRITERS = {"legacy": write_legacy, "zip": write_zip}
