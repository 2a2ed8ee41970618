"""Anchors of an image, in the order of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf


class AnchorGenerator:
    """Square anchors around the cell centers of every pyramid level.

    A level's stride is 2 to the power of its number, and its map has `ceil(side / stride)` cells; centers lie at
    `(index + 0.5) * stride`. The order is level, row, column, size. Anchors are not clipped. This is the layout of
    the public PyTorch checkpoints (biubug6/Pytorch_Retinaface).

    Args:
        sizes: dict level -> sizes in pixels, such as `{"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}`, fine to
            coarse. The levels may differ in how many they have.

    Raises:
        ValueError: if a level is not one of "P2" to "P6", is out of order or leaves a gap, or a size is not positive.
    """

    def __init__(self, sizes: Mapping[str, Sequence[float]]) -> None:
        try:
            self.sizes = {level: tuple(float(s) for s in level_sizes) for level, level_sizes in sizes.items()}
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"`anchors` must be a dict of level -> list of sizes. Received: {sizes!r}") from None
        levels = "".join(level[1:] for level in self.sizes)
        if not levels or levels not in "23456" or any(level[0] != "P" for level in self.sizes):
            raise ValueError(f"`anchors` must name neighboring levels, P2 to P6, fine to coarse. Received: {sizes}")
        if any(not level_sizes or min(level_sizes) <= 0 for level_sizes in self.sizes.values()):
            raise ValueError(f"`anchors` must give every level at least one positive size. Received: {sizes}")
        self.strides = {level: 2 ** int(level[1:]) for level in self.sizes}

    def count(self, height: int, width: int) -> int:
        """Number of anchors of an image of `height` by `width` pixels: int."""
        return sum(self.level_counts(height, width))

    def level_counts(self, height: Any, width: Any) -> list[Any]:
        """Number of anchors of each level, in order: list of int, or of scalar tensors as `height` and `width` are."""
        return [
            -(-height // stride) * -(-width // stride) * len(self.sizes[level])
            for level, stride in self.strides.items()
        ]

    def __call__(self, height: Any, width: Any) -> tf.Tensor:
        """Anchors of an image.

        Args:
            height, width: int or scalar int tensor, pixels.

        Returns:
            Float32 tensor `[A, 4]`, `xyxy` pixels.
        """
        return ops.concatenate([self._level(level, height, width) for level in self.sizes])

    def at(self, indices: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
        """Some of the anchors of an image, by arithmetic instead of a table of all.

        Args:
            indices: Int32 tensor `[K]`, rows of what a call with the same size returns.
            height, width: int or scalar int32 tensor, pixels.

        Returns:
            Float32 tensor `[K, 4]`, `xyxy` pixels: exactly the rows of the whole table.
        """
        level, cell, size, columns = self._place(indices, height, width)
        strides = ops.convert_to_tensor(list(self.strides.values()), "float32")
        sizes = ops.convert_to_tensor([s for level_sizes in self.sizes.values() for s in level_sizes], "float32")
        half = ops.take(sizes, size)[:, None] / 2
        row = cell // columns
        place = ops.cast(ops.stack([cell - row * columns, row], axis=-1), "float32")
        centers = (place + 0.5) * ops.take(strides, level)[:, None]
        return ops.concatenate([centers - half, centers + half], axis=-1)

    def _place(self, indices, height, width):
        """Level, cell within it, size (counted over all levels) and the level's columns: int32 tensors `[K]`."""
        first = [0]  # index of each level's first anchor
        for level, stride in self.strides.items():
            cells = -(-height // stride) * -(-width // stride)
            first.append(first[-1] + cells * len(self.sizes[level]))
        starts = ops.convert_to_tensor(first[:-1], "int32")
        level = ops.sum(ops.cast(indices[:, None] >= starts, "int32"), axis=1) - 1
        strides = list(self.strides.values())

        def of_level(values):
            return ops.take(ops.convert_to_tensor(values, "int32"), level)

        per_cell = of_level([len(sizes) for sizes in self.sizes.values()])
        columns = of_level([-(-width // stride) for stride in strides])
        within = indices - of_level(first[:-1])
        cell = within // per_cell
        size_starts = [sum(len(s) for s in list(self.sizes.values())[:i]) for i in range(len(strides))]
        return level, cell, of_level(size_starts) + within - cell * per_cell, columns

    def _level(self, level, height, width):
        stride = self.strides[level]
        y, x = (
            (ops.cast(ops.arange(-(-side // stride), dtype="int32"), "float32") + 0.5) * stride  # centers
            for side in (height, width)
        )
        centers = ops.reshape(y, (-1, 1, 1, 1)) * (0.0, 1.0, 0.0, 1.0) + ops.reshape(x, (1, -1, 1, 1)) * (
            1.0,
            0.0,
            1.0,
            0.0,
        )
        half = np.array(self.sizes[level], np.float32)[:, None] / 2
        return ops.reshape(centers + np.concatenate([-half, -half, half, half], axis=1), (-1, 4))
