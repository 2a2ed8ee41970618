"""Boxes and landmarks as offsets from an anchor, and back.

The parametrisation of Faster R-CNN (arXiv 1506.01497) divided by two variances, as in SSD and the public RetinaFace
checkpoints: centers and landmarks move in units of `variances[0]` anchor sides, sizes in units of `variances[1]` of
their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf


MAX_LOG_SCALE = math.log(1000.0)  # a wild offset then gives a huge box instead of infinity
SMALLEST_SIDE = 1e-3  # pixels; keeps the logarithm of an empty box finite


def _centers_and_sides(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode_boxes(boxes: tf.Tensor, anchors: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Encode boxes as offsets from anchors.

    Args:
        boxes: Float tensor `[..., 4]`, `xyxy` pixels.
        anchors: Float tensor `[..., 4]`, likewise; shapes broadcast.
        variances: pair of floats, for the center and the size.

    Returns:
        Float tensor `[..., 4]`: x, y, log width, log height. Finite for an empty box too.
    """
    centers, sides = _centers_and_sides(boxes)
    anchor_centers, anchor_sides = _centers_and_sides(anchors)
    shift = (centers - anchor_centers) / anchor_sides / variances[0]
    scale = ops.log(ops.maximum(sides, SMALLEST_SIDE) / anchor_sides) / variances[1]
    return ops.concatenate([shift, scale], axis=-1)


def decode_boxes(offsets: tf.Tensor, anchors: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Decode offsets to boxes: the inverse of `encode_boxes`.

    Args:
        offsets: Float tensor `[..., 4]`.
        anchors: Float tensor `[..., 4]`, `xyxy` pixels; shapes broadcast.
        variances: pair of floats.

    Returns:
        Float tensor `[..., 4]`, `xyxy` pixels, not clipped. A side is at most 1,000 times the anchor's.
    """
    anchor_centers, anchor_sides = _centers_and_sides(anchors)
    centers = anchor_centers + offsets[..., :2] * variances[0] * anchor_sides
    log_scale = ops.minimum(offsets[..., 2:] * variances[1], MAX_LOG_SCALE)
    half = ops.exp(log_scale) * anchor_sides / 2
    return ops.concatenate([centers - half, centers + half], axis=-1)


def encode_landmarks(landmarks: tf.Tensor, anchors: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Encode landmarks as offsets from anchor centers.

    Args:
        landmarks: Float tensor `[..., 5, 2]`, x and y in pixels.
        anchors: Float tensor `[..., 4]`, `xyxy` pixels.
        variances: pair of floats; only the first is used.

    Returns:
        Float tensor `[..., 5, 2]`.
    """
    centers, sides = _centers_and_sides(anchors)
    return (landmarks - centers[..., None, :]) / sides[..., None, :] / variances[0]


def decode_landmarks(offsets: tf.Tensor, anchors: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Decode offsets to landmarks: the inverse of `encode_landmarks`, with the same shapes."""
    centers, sides = _centers_and_sides(anchors)
    return centers[..., None, :] + offsets * variances[0] * sides[..., None, :]
