"""Export with 8-bit integers in the middle of the network, and floats where precision matters.

The channels between two convolutions are first brought nearer to one range: a tensor's 256 steps should not be spent on
its widest channel. A leaky ReLU passes any positive factor through, so a channel may be divided by its range where it
is made and multiplied by it where it is read, and the network stays the same function: the equalization of Nagel et
al., "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721), with ranges measured
on photos.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from retinaface_tf.common.files import find_photos
from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.export.tflite_model import append_subgraph, convert, output_shapes
from retinaface_tf.image.letterbox import fit
from retinaface_tf.image.loading import ImageError, load_image
from retinaface_tf.network.conv_block import ConvBlock

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.detector_graph import DetectorGraph


SMALLEST = 0.01  # of the widest channel's range: what is still smaller is not worth a step
BACKBONE_MAPS = ("C2", "C3", "C4", "C5")
SHARE = 0.5  # how far, as an exponent, where an ordinary convolution reads: its own steps are shared by its inputs


def convert_int8(graph: DetectorGraph, photos: Sequence[np.ndarray]) -> Any:
    """Convert a detector with its middle, which is nine tenths of the arithmetic, in integers.

    The network of `graph` is changed, see `equalize`. Photos are uint8 `[H, W, 3]`, all of one size, not empty. The
    `ModelT` that is returned has the inputs and outputs of `graph.whole()`.
    """
    model = convert_features(graph, photos)
    (subgraph,) = model.subgraphs
    sources = [subgraph.inputs[0], *subgraph.outputs]
    append_subgraph(model, convert(graph.after(output_shapes(model))), dict(enumerate(sources)))
    return model


def convert_features(graph: DetectorGraph, photos: Sequence[np.ndarray]) -> Any:
    """The same up to `DetectorGraph.split_points`, as floats: a list, of what the heads read the coarsest last."""
    equalize(graph.network, photos)
    layer = graph.network.last_float_layer
    before = graph.before(layer)

    def samples():
        for photo in photos:
            yield [before(tf.constant(photo[None]))[0].numpy()]

    def prepare(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    model = convert(before)
    append_subgraph(model, convert(graph.features(layer), prepare), {0: model.subgraphs[0].outputs[0]})
    return model


def equalize(network: RetinaFace, photos: Sequence[np.ndarray]) -> None:
    """Rescale the channels between the convolutions of a chain-like backbone of a folded network, in place.

    Only the body's: the pyramid and the context modules lose little. A network whose body is no chain of convolutions
    (ResNet's sums tie its channels together) stays as it is.
    """
    body = [layer for layer in network.layers if layer.name.startswith("body_")]
    if not all(isinstance(layer, ConvBlock) for layer in body):
        return
    readers = _readers(network, body)
    for block, largest in zip(body, _ranges(network, body, photos), strict=True):
        if readers[block.name]:
            depthwise = all(reader.depthwise for reader in readers[block.name])
            factors = np.maximum(largest / largest.max(), SMALLEST) ** (1.0 if depthwise else SHARE)
            _rescale(block, readers[block.name], factors)


def _readers(network, body):
    """The convolutions that read what each block of the body makes: dict name -> list of `ConvBlock`."""
    readers = {block.name: [after] for block, after in pairwise(body)} | {body[-1].name: []}
    pyramid = network.get_layer("pyramid")
    maps = dict(zip(BACKBONE_MAPS, pyramid.input, strict=True))  # Keras has flattened the dict, by name
    makers = {id(block.output): block.name for block in body}
    for level, lateral in zip(pyramid.lateral_levels, pyramid.laterals, strict=True):
        readers[makers[id(maps["C" + level[1:]])]].append(lateral)
    if pyramid.extra is not None:
        readers[body[-1].name].append(pyramid.extra)
    return readers


def _ranges(network, body, photos):
    """The largest magnitude of every channel of every block before its activation: list of arrays."""
    largest = [0.0] * len(body)
    for photo in photos:
        x = network.get_layer("pixels")(photo[None])
        for index, block in enumerate(body):
            raw = block.convolution(x if block.pad is None else block.pad(x))
            largest[index] = np.maximum(largest[index], np.abs(raw).max(axis=(0, 1, 2)))
            x = block(x)
    return largest


def _rescale(block, readers, factors):
    made = block.convolution
    made.kernel.assign(made.kernel.numpy() / (factors[:, None] if block.depthwise else factors))
    made.bias.assign(made.bias.numpy() / factors)
    for reader in readers:  # kernels are [k, k, C, 1] or [k, k, C, C out]
        reader.convolution.kernel.assign(reader.convolution.kernel.numpy() * factors[:, None])


MOST_PHOTOS, LEAST_PHOTOS = 200, 8
ANY_SIZE = (640, 640)  # canvas of an artifact for any size: height and width


@dataclass(frozen=True)
class CalibrationPhotos:
    """Calibration photos, prepared as for the exported model.

    Attributes:
        photos: list of uint8 arrays `[H, W, 3]`, all of one size.
        found: int. Photos that were there.
        unreadable: one line for each that was tried and can't be decoded.
        notes: one line for each folder in which other files were passed over.
    """

    photos: list[np.ndarray]
    found: int
    unreadable: list[str]
    notes: list[str]

    def __str__(self) -> str:
        bad = f"; {len(self.unreadable)} can't be read, such as {self.unreadable[0]}" if self.unreadable else ""
        return f"calibrated on {len(self.photos)} of {pluralize(self.found, 'photo')}{bad}"


def read_calibration_photos(
    source: PathLike | Sequence[ImageSource] | None, size: tuple[int, int] | None, fill: Sequence[int]
) -> CalibrationPhotos:
    """Read calibration photos, turned upright and on the artifact's canvas.

    Args:
        source: folder, searched with all below it, or list of what `load_image` takes. Of more than `MOST_PHOTOS` that
            many are taken, evenly spread.
        size: (height, width) of the artifact, pixels, or `None` for any.
        fill: three ints, the color beside photos that are smaller.

    Raises:
        ValueError: if nothing was given, that is no folder, or fewer than `LEAST_PHOTOS` can be used; for the first of
            a list that can't be decoded.
    """
    paths, notes = require_photos(source)
    chosen, photos, unreadable = paths[:: -(-len(paths) // MOST_PHOTOS)], [], []
    for one in chosen:
        try:
            photos.append(load_image(one))
        except ImageError as error:
            if isinstance(source, (list, tuple)):
                raise
            unreadable.append(str(error))
    if len(photos) < LEAST_PHOTOS:
        first = f", such as {unreadable[0]}" if unreadable else ""
        raise ValueError(
            f"int8 calibration needs at least {LEAST_PHOTOS} photos; a few dozen are better. {source}: "
            f"{pluralize(len(photos), 'photo')} of {len(paths)} can be used{first}"
        )
    return CalibrationPhotos(
        [fit(photo, size or ANY_SIZE, fill).canvas for photo in photos], len(paths), unreadable, notes
    )


def require_photos(source: PathLike | Sequence[ImageSource] | None) -> tuple[list[ImageSource], list[str]]:
    """The photos of a folder or list, at least `LEAST_PHOTOS`, and notes. Raises as `read_calibration_photos`."""
    if source is None:
        raise ValueError("int8 measures its ranges on photos like yours: --calibration DIR is missing")
    notes: list[str] = []
    if not isinstance(source, (str, os.PathLike)):
        photos, name = list[ImageSource](source), "the list"
    elif not Path(source).is_dir():
        raise ValueError(f"`calibration` must be a folder of photos. Received: {source}")
    else:
        found, _, notes = find_photos([str(source)])
        photos, name = list[ImageSource](path for path, _ in found), str(source)
    if len(photos) < LEAST_PHOTOS:
        raise ValueError(
            f"int8 calibration needs at least {LEAST_PHOTOS} photos; a few dozen are better. {name}: "
            f"{pluralize(len(photos), 'photo')}"
        )
    return photos, notes
