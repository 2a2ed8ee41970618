"""Sums of loss over anchors: each function one formula, no averaging, no weighting between them.

All take float32 tensors over N images and A anchors and return a scalar sum; `weights` 0 leaves an anchor out.
"""

import tensorflow as tf
from keras import ops

from retinaface_tf.geometry.boxes import area


def mined_cross_entropy(
    logits: tf.Tensor,
    faces: tf.Tensor,
    weights: tf.Tensor,
    negatives_per_positive: int,
    negatives_without_faces: int = 0,
) -> tf.Tensor:
    """Softmax cross-entropy over faces and the hardest negatives of each image (as in SSD, arXiv 1512.02325).

    An image with P positives counts `negatives_per_positive * P` negatives of highest loss; of equal ones the first.

    Args:
        logits: `[N, A, 2]`, background and face.
        faces: `[N, A]`, 1 where an anchor answers for a face.
        weights: `[N, A]`. They scale what an anchor costs, not how hard it is.
        negatives_per_positive: int; 7 in biubug6/Pytorch_Retinaface, 3 in the paper.
        negatives_without_faces: int. Negatives of an image without positives. The published recipes never show one, and
            0 gives it no loss; some are wanted to learn from photos without faces.
    """
    difference = logits[..., 1] - logits[..., 0]
    positive = faces * weights
    positive_sum = tf.reduce_sum(positive * ops.softplus(-difference))
    negative_losses = tf.where((1 - faces) * weights > 0, ops.softplus(difference), -1.0)
    count = tf.reduce_sum(tf.cast(positive > 0, tf.int32), axis=-1)
    wanted = tf.where(count > 0, negatives_per_positive * count, negatives_without_faces)
    most = tf.minimum(tf.reduce_max(tf.pad(wanted, [[0, 1]])), tf.shape(faces)[1])
    hardest, index = tf.math.top_k(negative_losses, most)
    chosen = (tf.range(most)[None] < wanted[:, None]) & (hardest >= 0)
    return positive_sum + tf.reduce_sum(tf.where(chosen, hardest * tf.gather(weights, index, batch_dims=1), 0.0))


def focal_loss(
    logits: tf.Tensor, faces: tf.Tensor, weights: tf.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> tf.Tensor:
    """Focal loss (arXiv 1708.02002): all anchors, easy ones nearly silent. Arguments as in `mined_cross_entropy`."""
    difference = logits[..., 1] - logits[..., 0]
    signed = tf.where(faces > 0, difference, -difference)
    balance = tf.where(faces > 0, alpha, 1 - alpha)
    return tf.reduce_sum(weights * balance * ops.sigmoid(-signed) ** gamma * ops.softplus(-signed))


def quality_focal_loss(logits: tf.Tensor, quality: tf.Tensor, weights: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """Quality focal loss (arXiv 2006.04388): the score is to say how well the box fits.

    Args:
        logits: `[N, A, 2]`.
        quality: `[N, A]` in [0, 1]: IoU of the predicted box with its face, 0 without one. No gradient flows into it.
        weights: `[N, A]`.
        beta: float.
    """
    difference = logits[..., 1] - logits[..., 0]
    quality = tf.stop_gradient(quality)
    cross_entropy = ops.softplus(difference) - quality * difference
    return tf.reduce_sum(weights * tf.abs(quality - ops.sigmoid(difference)) ** beta * cross_entropy)


def smooth_l1(values: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Smooth L1 (Huber with delta 1, Fast R-CNN, arXiv 1504.08083).

    Args:
        values, targets: `[..., D]`.
        weights: `[...]`.
    """
    error = tf.abs(values - targets)
    each = tf.where(error < 1, 0.5 * error**2, error - 0.5)
    return tf.reduce_sum(weights[..., None] * each)


def paired_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """IoU of boxes that lie side by side: `[..., 4]` `xyxy` twice -> `[...]`, 0 where there is no area."""
    intersection, union = _overlap(boxes_a, boxes_b)
    return intersection / tf.where(union > 0, union, 1)


def giou_loss(boxes: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum of 1 - generalised IoU (arXiv 1902.09630).

    Args:
        boxes, targets: `[..., 4]`, `xyxy` pixels.
        weights: `[...]`.
    """
    intersection, union = _overlap(boxes, targets)
    sides = _hull(boxes, targets)
    hull = sides[..., 0] * sides[..., 1]
    giou = _ratio(intersection, union) - _ratio(hull - union, hull)
    return tf.reduce_sum(tf.where(weights > 0, weights * (1 - giou), 0))


def diou_loss(boxes: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum of 1 - distance IoU (arXiv 1911.08287). Arguments as in `giou_loss`."""
    intersection, union = _overlap(boxes, targets)
    diagonal = tf.reduce_sum(_hull(boxes, targets) ** 2, axis=-1)
    shift = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    diou = _ratio(intersection, union) - _ratio(tf.reduce_sum(shift**2, axis=-1), diagonal)
    return tf.reduce_sum(tf.where(weights > 0, weights * (1 - diou), 0))


def _overlap(boxes_a, boxes_b):
    sides = ops.relu(tf.minimum(boxes_a[..., 2:], boxes_b[..., 2:]) - tf.maximum(boxes_a[..., :2], boxes_b[..., :2]))
    intersection = sides[..., 0] * sides[..., 1]
    return intersection, area(boxes_a) + area(boxes_b) - intersection


def _hull(boxes_a, boxes_b):
    """Width and height of the smallest box around two."""
    return tf.maximum(boxes_a[..., 2:], boxes_b[..., 2:]) - tf.minimum(boxes_a[..., :2], boxes_b[..., :2])


def _ratio(part, whole):
    # Padding has no area; a guarded divisor keeps its gradient finite too.
    return part / tf.where(whole > 0, whole, 1)
