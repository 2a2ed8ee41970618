"""Areas, overlaps and clipping of boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Area of every box `[..., 4]`, `xyxy` pixels: `[...]`; 0 for a box whose corners are the wrong way round."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Intersection over union of every pair.

    Args:
        boxes_a: Float tensor `[..., A, 4]`, `xyxy` pixels.
        boxes_b: Float tensor `[..., B, 4]`, likewise. `A` and `B` may be 0.

    Returns:
        Float tensor `[..., A, B]` in `[0, 1]`; 0 wherever a box has no area.
    """
    intersection = intersections(boxes_a, boxes_b)
    union = area(boxes_a)[..., :, None] + area(boxes_b)[..., None, :] - intersection
    return intersection / ops.where(union > 0, union, 1)


def intersections(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Area of the intersection of every pair; arguments as in `pairwise_iou`."""
    # Coordinate by coordinate: a last axis of two would keep the processor from working on whole rows.
    left, top, right, bottom = (
        pick(boxes_a[..., :, None, i], boxes_b[..., None, :, i])
        for i, pick in enumerate((ops.maximum, ops.maximum, ops.minimum, ops.minimum))
    )
    return ops.relu(right - left) * ops.relu(bottom - top)


def clip(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Boxes `[..., 4]` cut at the edges of a window `[4]`, most often `[0, 0, width, height]`, both `xyxy` pixels.

    A box that lies outside comes back with no area.
    """
    low, high = ops.concatenate([window[:2], window[:2]]), ops.concatenate([window[2:], window[2:]])
    return ops.minimum(ops.maximum(boxes, low), high)
