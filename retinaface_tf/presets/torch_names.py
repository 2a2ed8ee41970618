"""PyTorch tensors, named as in biubug6/Pytorch_Retinaface, to Keras arrays: each matched by name and shape."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retinaface_tf.presets.torch_checkpoint import CheckpointError

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
