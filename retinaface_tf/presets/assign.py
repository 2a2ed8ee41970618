"""Named PyTorch tensors into a RetinaFace: every tensor matched by name and shape, or the file is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.presets.torch_checkpoint import CheckpointError

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


CONTEXT_NAMES = {
    "window_3": "conv3X3",
    "shared_5_7": "conv5X5_1",
    "window_5": "conv5X5_2",
    "inner_7": "conv7X7_2",
    "window_7": "conv7x7_3",
}
HEAD_NAMES = {"face": "ClassHead", "box": "BboxHead", "landmark": "LandmarkHead"}
# What a classifier or a training run has beside the detector's own tensors.
NOT_WEIGHTS = re.compile(r"(^|\.)num_batches_tracked$")
LISTED = 12  # names of each kind in an error
CLASSIFIER = re.compile(r"^(fc|avg|classifier)\.")


def assign(model: RetinaFace, tensors: Mapping[str, np.ndarray]) -> bool:
    """Write PyTorch tensors, named as in biubug6/Pytorch_Retinaface, into a model.

    The public networks take BGR and ours RGB, so the first convolution's input channels are turned round. A
    convolution that comes with a bias has its batch normalisation folded in: the bias becomes `beta`, and `gamma`,
    mean and variance are set so that the normalisation does nothing else.

    Args:
        model: `RetinaFace`, not folded, with one context module for each of the levels P3 to P5.
        tensors: dict name -> NumPy array. An ImageNet classifier's names (`stage1...` without `body.`) fill the body
            alone.

    Returns:
        bool: whether the whole detector was filled; False for the body alone.

    Raises:
        CheckpointError: naming every tensor that is missing, left over or misshapen.
    """
    tensors = {name: array for name, array in tensors.items() if not NOT_WEIGHTS.search(name)}
    body_only = not any(name.startswith(("body.", "fpn.", "ssh1.")) for name in tensors)
    if body_only:
        tensors = {f"body.{name}": array for name, array in tensors.items() if not CLASSIFIER.match(name)}

    expected = {}  # name -> (variable, array in Keras' layout or None where missing)
    for name, variable, layout in _wanted(model, tensors):
        if not body_only or name.startswith("body."):
            expected[name] = (variable, layout)

    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "left over": sorted(tensors.keys() - expected.keys()),
        "misshapen": [],
        "not finite": [],
    }
    values = {}
    for name in sorted(expected.keys() & tensors.keys()):
        variable, layout = expected[name]
        array = tensors[name]
        try:
            values[name] = layout(array)
        except ValueError:
            values[name] = array  # of the wrong rank: reported below
        if tuple(values[name].shape) != tuple(variable.shape):
            problems["misshapen"].append(f"{name} {list(array.shape)}, not Keras' {list(variable.shape)}")
        elif not np.isfinite(values[name]).all():
            problems["not finite"].append(name)
    if any(problems.values()):
        raise CheckpointError("the checkpoint does not fit this architecture: " + _listed(problems))

    _neutralise_folded(model, tensors)
    for name, value in values.items():
        expected[name][0].assign(value)
    return not body_only


def _listed(problems):
    parts = []
    for kind, names in problems.items():
        if names:
            shown = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
            parts.append(f"{len(names)} {kind} ({shown})")
    return "; ".join(parts)


def _wanted(model, tensors):
    """(PyTorch name, Keras variable, function to Keras' layout) of every tensor that the model takes."""
    first = True
    for convolution, normalisation, block in convolution_names(model):
        kernel = block.convolution.kernel
        if isinstance(block, ConvBlock):
            yield f"{convolution}.weight", kernel, _kernel_layout(block.depthwise, reverse_input=first)
            first = False
            norm = block.normalisation
            if f"{convolution}.bias" in tensors:
                yield f"{convolution}.bias", norm.beta, np.asarray
                continue
            yield f"{normalisation}.weight", norm.gamma, np.asarray
            yield f"{normalisation}.bias", norm.beta, np.asarray
            yield f"{normalisation}.running_mean", norm.moving_mean, np.asarray
            yield f"{normalisation}.running_var", norm.moving_variance, np.asarray
        else:
            yield f"{convolution}.weight", kernel, _kernel_layout(False, False)
            yield f"{convolution}.bias", block.convolution.bias, np.asarray


def _kernel_layout(depthwise, reverse_input):
    def layout(kernel):
        kernel = np.transpose(kernel, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        return kernel[:, :, ::-1] if reverse_input else kernel

    return layout


def _neutralise_folded(model, tensors):
    for convolution, _, block in convolution_names(model):
        if isinstance(block, ConvBlock) and f"{convolution}.bias" in tensors:
            norm = block.normalisation
            ones = np.ones(norm.gamma.shape, "float32")
            norm.gamma.assign(ones * np.sqrt(np.float32(1 + norm.epsilon)))
            norm.moving_mean.assign(0 * ones)
            norm.moving_variance.assign(ones)


def convolution_names(model: RetinaFace) -> Iterator[tuple[str, str | None, Any]]:
    """PyTorch names of every convolution and of its normalisation (`None` in the heads), with our block.

    Yields:
        (convolution name, normalisation name, `ConvBlock` or `PredictionHead`), from the image on.
    """
    levels = list(model.anchor_generator.sizes)
    for layer in model.layers:
        name = layer.name
        if name.startswith("body_") and isinstance(layer, ConvBlock):
            yield (*_body_names(name.removeprefix("body_")), layer)
    pyramid = model.get_layer("pyramid")
    for kind, blocks in (("output", pyramid.laterals), ("merge", pyramid.merges)):
        for i, block in enumerate(blocks, start=1):
            yield f"fpn.{kind}{i}.0", f"fpn.{kind}{i}.1", block
    contexts = ["context"] if model.shared_context else [f"context_{level}" for level in levels]
    for i, name in enumerate(contexts, start=1):
        context = model.get_layer(name)
        for ours, theirs in CONTEXT_NAMES.items():
            yield f"ssh{i}.{theirs}.0", f"ssh{i}.{theirs}.1", getattr(context, ours)
    for kind, theirs in HEAD_NAMES.items():
        for i, level in enumerate(levels):
            yield f"{theirs}.{i}.conv1x1", None, model.get_layer(f"{kind}_head_{level}")


def _body_names(name):
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
