"""Read the tensors of a PyTorch checkpoint, without PyTorch and without executing what the pickle says.

Both forms of `torch.save` are read: the legacy one (five pickles, then the raw storages) and the zip archive. A pickle
may call any function that it names; here it may name an ordered dict, PyTorch's storages and its rebuilding of tensors,
which become NumPy arrays. Everything else is refused before it is looked up.
`to_keras` matches the tensors, named as in biubug6/Pytorch_Retinaface, to our variables by name and shape.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retinaface_tf.common.files import require_file
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike

MAX_PICKLE = 64_000_000  # bytes; the structure of a checkpoint takes some thousands
EXPANSION = 8  # tensors may take so many times the bytes of the file: shared ones are copied, halves become floats
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class CheckpointError(ValueError):
    """A checkpoint that can't be read, or doesn't fit; the message is one line for its user."""


class _Storage:
    """A flat run of numbers that the pickle mentions and the file holds elsewhere."""

    def __init__(self, dtype, size):
        self.dtype, self.size, self.values = dtype, size, None


class _Tensor:
    """A view into a storage, to be resolved once the storages are read."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def resolve(self):
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        if min((*self.shape, *self.strides, self.offset, 0)) < 0 or (not empty and last >= self.storage.size):
            raise CheckpointError(f"a tensor of shape {self.shape} reaches outside its storage: the file is damaged")
        if math.prod(self.shape) > self.storage.size:
            raise CheckpointError(
                f"a tensor of shape {self.shape} repeats the {self.storage.size} numbers of its storage: refused"
            )
        if empty:
            return np.zeros(self.shape, self.storage.dtype)
        item = self.storage.values.itemsize
        flat = self.storage.values[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.shape, [s * item for s in self.strides]).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_unused):
    if not isinstance(storage, _Storage):
        raise CheckpointError("a tensor without a storage: the file is damaged")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(data, *_unused):
    return data


class _Unpickler(pickle.Unpickler):
    allowed = {  # noqa: RUF012
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch", "Size"): tuple,
        **{("torch", name): np.dtype(dtype) for name, dtype in STORAGE_DTYPES.items()},
    }

    def __init__(self, file):
        super().__init__(file, encoding="utf-8")
        self.storages = {}

    def find_class(self, module, name):
        try:
            return self.allowed[module, name]
        except KeyError:
            raise CheckpointError(
                f"the pickle asks for `{module}.{name}`, which a checkpoint of tensors has no need of; refused. "
                "Save a plain state dict: torch.save(model.state_dict(), FILE)"
            ) from None

    def persistent_load(self, reference):
        kind, dtype, key, _location, size, *_view = reference
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(size, int):
            raise CheckpointError(f"unknown reference {kind!r} in the pickle: expected a storage")
        return self.storages.setdefault(str(key), _Storage(dtype, size))


def read_torch_checkpoint(path: PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pth`, `.pt` or `.pth.tar` file.

    Args:
        path: Path of a file written by `torch.save`: a state dict, or a dict that holds one as "state_dict", "model"
            or "net". A leading `module.` of the names is taken off.

    Returns:
        dict name -> NumPy array, floats as float32.

    Raises:
        CheckpointError: if the file is damaged, no checkpoint, names something else than tensors, or holds none.
        OSError: if it can't be read.
    """
    path = require_file(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return _state_dict(content, EXPANSION * path.stat().st_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise CheckpointError(
            f"{path}: expected a PyTorch checkpoint (torch.save), found something else or a damaged file "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None


def _read_zip(path):
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError("a zip archive, but not of torch.save: it should hold one data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise CheckpointError("its archive is compressed, which torch.save never does: refused. Save it again")
        if sum(info.file_size for info in archive.infolist()) > size:
            raise CheckpointError("its archive is longer than the file: it is damaged")
        root = pickles[0][: -len("data.pkl")]
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise CheckpointError("big-endian checkpoints are not supported")
        unpickler = _Unpickler(io.BytesIO(_checked_pickle(archive.read(pickles[0]))))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            _fill(storage, archive.read(f"{root}data/{key}"))
    return content


def _read_legacy(path):
    size = path.stat().st_size
    with path.open("rb") as file:
        if _load_next(file).load() != LEGACY_MAGIC:
            raise CheckpointError("expected a PyTorch checkpoint (torch.save): the first bytes are of something else")
        _load_next(file).load()  # protocol version
        if not _load_next(file).load().get("little_endian", True):
            raise CheckpointError("big-endian checkpoints are not supported")
        unpickler = _load_next(file)
        content = unpickler.load()
        for key in _load_next(file).load():
            storage = unpickler.storages[str(key)]
            count = int.from_bytes(file.read(8), "little")
            if count != storage.size:
                raise CheckpointError(f"storage {key} has {count} numbers where {storage.size} were announced")
            _fill(storage, file.read(min(count * storage.dtype.itemsize, size)))
    return content


def _load_next(file):
    """An unpickler of the next pickle of a file that holds several; the file stands behind it afterwards."""
    start = file.tell()
    for _ in _checked_operations(file):
        pass
    end = file.tell()
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(end - start)))


def _checked_pickle(content):
    for _ in _checked_operations(content):
        pass
    return content


def _checked_operations(source):
    """The operations of a pickle, looked through before it is loaded: a memo of any size could be asked for."""
    for count, (operation, argument, place) in enumerate(pickletools.genops(source)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise CheckpointError("the pickle asks for more memory than it has contents: refused")
        if place is not None and place > MAX_PICKLE:
            raise CheckpointError(f"the pickle is longer than {MAX_PICKLE:,} bytes: refused")
        yield operation


def _fill(storage, data):
    if len(data) != storage.size * storage.dtype.itemsize:
        raise CheckpointError(f"a storage of {storage.size} numbers is cut short: the file is damaged")
    storage.values = np.frombuffer(data, storage.dtype)


def _state_dict(content, max_bytes):
    for key in ("state_dict", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, _Tensor) for v in content.values()):
        raise CheckpointError("the checkpoint contains no state dict (named tensors)")
    found = {str(name): value for name, value in content.items() if isinstance(value, _Tensor)}
    if sum(4 * math.prod(tensor.shape) for tensor in found.values()) > max_bytes:
        raise CheckpointError("its tensors share storages and would take much more memory than the file: refused")
    tensors = {}
    for name, tensor in found.items():
        array = tensor.resolve()
        tensors[name.removeprefix("module.")] = array.astype("float32") if array.dtype.kind == "f" else array
    return tensors


CONTEXT_NAMES = {
    "window_3": "conv3X3",
    "shared_5_7": "conv5X5_1",
    "window_5": "conv5X5_2",
    "inner_7": "conv7X7_2",
    "window_7": "conv7x7_3",
}
HEAD_NAMES = {"face": "ClassHead", "box": "BboxHead", "landmark": "LandmarkHead"}
KERNEL = "/convolution/kernel"
# What a classifier or a training run has beside the detector's own tensors.
NOT_WEIGHTS = re.compile(r"(^|\.)num_batches_tracked$")
CLASSIFIER = re.compile(r"^(fc|avg|classifier)\.")
LISTED = 12  # names of each kind in an error


def to_keras(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], epsilon: float
) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of a model's variables.

    The public networks take BGR and ours RGB, so the first convolution's input channels are reversed. A convolution
    that comes with a bias has its batch normalization folded in: the bias becomes `beta`, and `gamma`, mean and
    variance are set so that the normalization does nothing else.

    Args:
        tensors: dict PyTorch name -> NumPy array. An ImageNet classifier's names (`stage1...` without `body.`) fill the
            backbone alone.
        shapes: dict variable path -> shape, of a `RetinaFace` that is not folded, from the image on.
        epsilon: float, of the batch normalization.

    Returns:
        (dict variable path -> float32 array, whether the whole detector is filled; False for the backbone alone).

    Raises:
        CheckpointError: naming every tensor that is missing, left over, misshapen or not finite.
    """
    tensors = {name: array for name, array in tensors.items() if not NOT_WEIGHTS.search(name)}
    backbone_only = not any(name.startswith(("body.", "fpn.", "ssh1.")) for name in tensors)
    if backbone_only:
        tensors = {f"body.{name}": array for name, array in tensors.items() if not CLASSIFIER.match(name)}

    wanted = {
        name: (path, layout)
        for name, path, layout in _wanted(shapes, tensors)
        if not backbone_only or name.startswith("body.")
    }
    problems: dict[str, list[str]] = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "left over": sorted(tensors.keys() - wanted.keys()),
        "misshapen": [],
        "not finite": [],
    }
    arrays = {}
    for name in sorted(wanted.keys() & tensors.keys()):
        path, layout = wanted[name]
        array = tensors[name]
        try:
            values = layout(array)
        except ValueError:
            values = array  # of the wrong rank: reported below
        if tuple(values.shape) != tuple(shapes[path]):
            problems["misshapen"].append(f"{name} {list(array.shape)}, not Keras' {list(shapes[path])}")
        elif not np.isfinite(values).all():
            problems["not finite"].append(name)
        arrays[path] = values
        if path.endswith("/normalisation/beta") and f"{name.removesuffix('.bias')}.running_mean" not in wanted:
            arrays |= _neutral(path.removesuffix("beta"), shapes[path], epsilon)
    if any(problems.values()):
        raise CheckpointError("the checkpoint does not fit this architecture: " + _listed(problems))
    return arrays, not backbone_only


def _neutral(path, shape, epsilon):
    """Scale and statistics of a batch normalization that only adds its `beta`."""
    return {
        f"{path}gamma": np.full(shape, np.sqrt(np.float32(1 + epsilon)), "float32"),
        f"{path}moving_mean": np.zeros(shape, "float32"),
        f"{path}moving_variance": np.ones(shape, "float32"),
    }


def _wanted(shapes, tensors):
    """(PyTorch name, variable path, function to Keras' layout) of every tensor that the model takes."""
    first = True
    for convolution, normalization, layer in convolution_names(shapes):
        yield f"{convolution}.weight", layer + KERNEL, _kernel_layout(layer, reverse_input=first)
        first = False
        if normalization is None:
            yield f"{convolution}.bias", f"{layer}/convolution/bias", np.asarray
        elif f"{convolution}.bias" in tensors:
            yield f"{convolution}.bias", f"{layer}/normalisation/beta", np.asarray
        else:
            for theirs, ours in (
                ("weight", "gamma"),
                ("bias", "beta"),
                ("running_mean", "moving_mean"),
                ("running_var", "moving_variance"),
            ):
                yield f"{normalization}.{theirs}", f"{layer}/normalisation/{ours}", np.asarray


def _kernel_layout(layer, reverse_input):
    def layout(kernel):
        kernel = np.transpose(kernel, (2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0))
        return kernel[:, :, ::-1] if reverse_input else kernel

    return layout


def convolution_names(shapes: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str]]:
    """PyTorch names of every convolution and of its normalization (`None` in the heads), with the path of our layer.

    The keys of `shapes` are the variables' paths, from the image on.
    """
    layers = [path.removesuffix(KERNEL) for path in shapes if path.endswith(KERNEL)]
    levels = sorted(name.rpartition("_")[2] for name in layers if name.startswith("face_head_"))
    for name in layers:
        if name.startswith("body_"):
            yield (*_backbone_names(name.removeprefix("body_")), name)
    for kind, ours in (("output", "lateral"), ("merge", "merge")):
        for i, level in enumerate(levels, start=1):
            if (layer := f"pyramid/{ours}_{level}") in layers:
                yield f"fpn.{kind}{i}.0", f"fpn.{kind}{i}.1", layer
    contexts = sorted({name.partition("/")[0] for name in layers if name.startswith("context")})
    for i, context in enumerate(contexts, start=1):
        for ours, theirs in CONTEXT_NAMES.items():
            yield f"ssh{i}.{theirs}.0", f"ssh{i}.{theirs}.1", f"{context}/{ours}"
    for ours, theirs in HEAD_NAMES.items():
        for i, level in enumerate(levels):
            yield f"{theirs}.{i}.conv1x1", None, f"{ours}_head_{level}"


def _backbone_names(name):
    """`stage1_1_pointwise` -> `body.stage1.1.3`, `.4`; `layer1_0_conv2` -> `body.layer1.0.conv2`, `.bn2`."""
    if name == "stem":
        return "body.conv1", "body.bn1"
    part, index, *kind = name.split("_")
    prefix = f"body.{part}.{index}"
    if kind in ([], ["depthwise"]):
        return f"{prefix}.0", f"{prefix}.1"
    if kind == ["pointwise"]:
        return f"{prefix}.3", f"{prefix}.4"
    if kind == ["downsample"]:
        return f"{prefix}.downsample.0", f"{prefix}.downsample.1"
    return f"{prefix}.{kind[0]}", f"{prefix}.{kind[0].replace('conv', 'bn')}"


def _listed(problems):
    parts = []
    for kind, names in problems.items():
        if names:
            shown = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
            parts.append(f"{len(names)} {kind} ({shown})")
    return "; ".join(parts)
