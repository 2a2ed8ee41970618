"""Match anchors to ground-truth faces by IoU."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from retinaface_tf.geometry.boxes import area, intersections, pairwise_iou

# States of an anchor that is matched to no face.
NEGATIVE, IGNORED = -1, -2
MAX_PAIRS = 1 << 21  # anchor-face pairs held at once: memory does not grow with the crowd


def match_by_iou(
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    positive_iou: float = 0.35,
    negative_iou: float = 0.35,
    forced_iou: float | None = 0.2,
) -> tf.Tensor:
    """Match each anchor to the face that it overlaps most, by thresholds.

    With 0.35, 0.35 and 0.2 this is the rule of biubug6/Pytorch_Retinaface; with 0.5, 0.3 and None that of the paper
    (arXiv 1905.00641).

    Args:
        anchors: float32 tensor `[A, 4]`, or `[N, A, 4]` where each image has its own, `xyxy` pixels.
        boxes: float32 tensor `[N, F, 4]`, `xyxy` pixels; padding has no area. F may be 0.
        positive_iou: float. IoU from which an anchor is matched to a face.
        negative_iou: float, at most `positive_iou`. Below it an anchor is NEGATIVE, between the two IGNORED.
        forced_iou: float or `None`. Each face gets the anchor that overlaps it most, whatever else that anchor
            overlaps, if by at least so much. Of two faces with the same best anchor the later one has it.

    Returns:
        int32 tensor `[N, A]`: index of a face, NEGATIVE or IGNORED.
    """
    anchors, boxes = _tensors(anchors, boxes)
    num_images, num_faces, num_anchors = tf.shape(boxes)[0], tf.shape(boxes)[1], tf.shape(anchors)[1]

    def over_faces(start, best_iou, best_face, face_iou, face_anchor):
        some = boxes[:, start : start + chunk]
        iou = pairwise_iou(some, anchors)  # [N, f, A]
        here = tf.reduce_max(iou, axis=1)
        # The first of equals wins, within a chunk and across.
        better = here > best_iou
        best_face = tf.where(better, start + tf.argmax(iou, axis=1, output_type=tf.int32), best_face)
        face_iou = tf.concat([face_iou, tf.reduce_max(iou, axis=2)], axis=1)
        face_anchor = tf.concat([face_anchor, tf.argmax(iou, axis=2, output_type=tf.int32)], axis=1)
        return start + chunk, tf.maximum(here, best_iou), best_face, face_iou, face_anchor

    chunk = _chunk(num_images * num_anchors)
    per_anchor = [num_images, num_anchors]
    initial = (
        tf.constant(0),
        tf.zeros(per_anchor),
        tf.fill(per_anchor, NEGATIVE),
        tf.zeros([num_images, 0]),
        tf.zeros([num_images, 0], tf.int32),
    )
    _, best_iou, match, face_iou, face_anchor = tf.while_loop(
        lambda start, *_: start < num_faces,
        over_faces,
        initial,
        shape_invariants=(tf.TensorShape([]), *[tf.TensorShape([None, None])] * 4),
        parallel_iterations=1,
    )
    match = tf.where(best_iou >= positive_iou, match, tf.where(best_iou < negative_iou, NEGATIVE, IGNORED))
    if forced_iou is None:
        return match
    return _force(match, face_anchor, (face_iou >= forced_iou) & (area(boxes) > 0))


def match_by_atss(
    anchors: tf.Tensor, boxes: tf.Tensor, level_counts: Sequence[Any], top_k: int = 9, forced_iou: float | None = None
) -> tf.Tensor:
    """Adaptive training sample selection (ATSS, arXiv 1912.02424).

    A face's candidates are the `top_k` anchors of each level whose centers lie nearest to its own. It takes those whose
    center lies inside it and whose overlap is at least the candidates' mean plus their standard deviation. An anchor
    wanted by several faces goes to the one it overlaps most.

    Args:
        anchors, boxes, forced_iou: as in `match_by_iou`; the forced anchor is the candidate that overlaps most. A face
            so small that no center lies inside is left without an anchor unless `forced_iou` is given.
        level_counts: list of int or scalar int tensors. Anchors of each level, in their order.
        top_k: int.

    Returns:
        int32 tensor `[N, A]`: index of a face or NEGATIVE; ATSS ignores none.
    """
    anchors, boxes = _tensors(anchors, boxes)
    num_images, num_faces, num_anchors = tf.shape(boxes)[0], tf.shape(boxes)[1], tf.shape(anchors)[1]
    candidates = _nearest(anchors, boxes, level_counts, top_k)  # [N, F, C]
    per_image = tf.broadcast_to(anchors, [num_images, num_anchors, 4])
    chosen = tf.gather(per_image, candidates, batch_dims=1)  # [N, F, C, 4]
    iou = pairwise_iou(boxes[:, :, None], chosen)[:, :, 0]  # [N, F, C]
    mean = tf.reduce_mean(iou, axis=-1, keepdims=True)
    count = tf.cast(tf.shape(iou)[-1], tf.float32)
    deviation = tf.sqrt(tf.reduce_sum((iou - mean) ** 2, axis=-1, keepdims=True) / tf.maximum(count - 1, 1))
    centers = (chosen[..., :2] + chosen[..., 2:]) / 2
    inside = tf.reduce_all((centers > boxes[:, :, None, :2]) & (centers < boxes[:, :, None, 2:]), axis=-1)
    positive = inside & (iou >= mean + deviation) & (iou > 0)

    image = tf.broadcast_to(tf.range(num_images)[:, None, None], tf.shape(candidates))
    face = tf.broadcast_to(tf.range(num_faces)[None, :, None], tf.shape(candidates))
    where = tf.stack([image, candidates], axis=-1)
    best = tf.tensor_scatter_nd_max(tf.zeros([num_images, num_anchors]), where, tf.where(positive, iou, 0))
    winner = positive & (iou == tf.gather_nd(best, where))
    match = tf.tensor_scatter_nd_max(
        tf.fill([num_images, num_anchors], NEGATIVE), where, tf.where(winner, face, NEGATIVE)
    )
    if forced_iou is None:
        return match
    # A column of zeros keeps the reduction defined where there is no anchor at all.
    face_iou = tf.reduce_max(tf.pad(iou, [[0, 0], [0, 0], [0, 1]]), axis=-1)
    first = tf.argmax(iou, axis=-1, output_type=tf.int32)
    face_anchor = tf.gather(candidates, first, batch_dims=2)
    return _force(match, face_anchor, (face_iou >= forced_iou) & (area(boxes) > 0))


def in_regions(anchors: tf.Tensor, regions: tf.Tensor, overlap: float) -> tf.Tensor:
    """Whether an ignore region covers at least the part `overlap` of an anchor: bool `[N, A]`.

    Regions are float32 `[N, R, 4]`, `xyxy` pixels; padding has no area. R may be 0.
    """
    anchors, regions = _tensors(anchors, regions)
    num_images, num_regions, num_anchors = tf.shape(regions)[0], tf.shape(regions)[1], tf.shape(anchors)[1]
    chunk = _chunk(num_images * num_anchors)

    def over_regions(start, largest):
        some = regions[:, start : start + chunk]
        covered = tf.reduce_max(intersections(some, anchors), axis=1)
        return start + chunk, tf.maximum(largest, covered)

    _, largest = tf.while_loop(
        lambda start, _: start < num_regions,
        over_regions,
        (tf.constant(0), tf.zeros([num_images, num_anchors])),
        parallel_iterations=1,
    )
    return (largest >= overlap * area(anchors)) & (largest > 0)


def _tensors(anchors, boxes):
    anchors, boxes = tf.convert_to_tensor(anchors, tf.float32), tf.convert_to_tensor(boxes, tf.float32)
    return anchors if anchors.shape.rank == 3 else anchors[None], boxes


def _nearest(anchors, boxes, level_counts, top_k):
    """Indices of the `top_k` anchors of each level nearest to each face: int32 `[N, F, C]`."""
    num_images, num_faces = tf.shape(boxes)[0], tf.shape(boxes)[1]
    anchor_centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    face_centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    found, first = [], 0
    for count in level_counts:
        x, y = (anchor_centers[:, first : first + count, axis] for axis in (0, 1))
        chunk = _chunk(num_images * count)

        def over_faces(start, indices, x=x, y=y, chunk=chunk, count=count):
            centers = face_centers[:, start : start + chunk, :, None]
            distance = (centers[:, :, 0] - x[:, None]) ** 2 + (centers[:, :, 1] - y[:, None]) ** 2
            nearest = tf.math.top_k(-distance, tf.minimum(top_k, count)).indices
            return start + chunk, tf.concat([indices, nearest], axis=1)

        _, indices = tf.while_loop(
            lambda start, _: start < num_faces,
            over_faces,
            (tf.constant(0), tf.zeros([num_images, 0, tf.minimum(top_k, count)], tf.int32)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None])),
            parallel_iterations=1,
        )
        found.append(indices + first)
        first += count
    return tf.concat(found, axis=-1)


def _force(match, face_anchor, forced):
    """Give each face for which `forced` `[N, F]` holds its anchor: the later of two faces has it."""
    num_images, num_faces = tf.shape(forced)[0], tf.shape(forced)[1]
    image = tf.broadcast_to(tf.range(num_images)[:, None], tf.shape(forced))
    face = tf.where(forced, tf.range(num_faces)[None], NEGATIVE)
    owner = tf.tensor_scatter_nd_max(tf.fill(tf.shape(match), NEGATIVE), tf.stack([image, face_anchor], axis=-1), face)
    return tf.where(owner >= 0, owner, match)


def _chunk(pairs_a_face):
    return tf.maximum(1, MAX_PAIRS // tf.maximum(1, pairs_a_face))
