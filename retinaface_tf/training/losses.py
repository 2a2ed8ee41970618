"""Loss formulas, each a sum over anchors, and `DetectionLoss`, which puts them together.

The formulas take float32 tensors over N images and A anchors and return a scalar sum, without averaging and without
weights between them; an anchor whose `weights` are 0 is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

from retinaface_tf.geometry.box_coder import decode_boxes
from retinaface_tf.geometry.boxes import area

if TYPE_CHECKING:
    from retinaface_tf.geometry.anchor_target import Targets

FACE_LOSSES = ("mined_cross_entropy", "focal", "quality_focal")
BOX_LOSSES = ("smooth_l1", "diou", "giou")


@keras.saving.register_keras_serializable("retinaface_tf")
class DetectionLoss:
    """Face, box and landmark loss of predictions against `Targets`.

    The defaults are the loss of biubug6/Pytorch_Retinaface: sums over anchors; the face and box sums divided by the
    positives of the whole batch, the landmark sum by the positives with landmarks; boxes count twice.

    Args:
        face: "mined_cross_entropy", "focal" or "quality_focal".
        box: "smooth_l1" on offsets, or "diou" or "giou" on decoded boxes.
        face_weight, box_weight, landmark_weight: floats.
        negatives_per_positive, negatives_without_faces: ints, see `mined_cross_entropy`.
        soft_scores: bool. A label with a score below 1, of a teacher, is to be found with that face probability instead
            of 1; for "mined_cross_entropy" alone.
        landmark_by_face_size: bool. Measure landmark errors in parts of the face's size instead of the anchor's: large
            faces on small anchors then weigh no more than others.
        variances: pair of floats. See `box_coder`.
    """

    def __init__(
        self,
        face: str = "mined_cross_entropy",
        box: str = "smooth_l1",
        face_weight: float = 1.0,
        box_weight: float = 2.0,
        landmark_weight: float = 1.0,
        negatives_per_positive: int = 7,
        negatives_without_faces: int = 0,
        landmark_by_face_size: bool = False,
        soft_scores: bool = False,
        variances: tuple[float, float] = (0.1, 0.2),
    ) -> None:
        for name, value, known in (("face", face, FACE_LOSSES), ("box", box, BOX_LOSSES)):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {list(known)}. Received: {name}={value!r}")
        self.face = face
        self.box = box
        self.face_weight = face_weight
        self.box_weight = box_weight
        self.landmark_weight = landmark_weight
        self.negatives_per_positive = negatives_per_positive
        self.negatives_without_faces = negatives_without_faces
        self.landmark_by_face_size = landmark_by_face_size
        self.soft_scores = soft_scores
        self.variances = tuple(variances)

    def __call__(
        self,
        targets: Targets,
        predictions: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        image_weights: tf.Tensor | None = None,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """The losses of a batch.

        Args:
            targets: `Targets`.
            predictions: dict as `RetinaFace` returns it; "landmark" may be missing.
            anchors: float32 `[A, 4]` or `[N, A, 4]`, `xyxy` pixels.
            image_weights: float32 `[N]` or `None` for 1: an image of weight 0 counts for nothing.

        Returns:
            dict of "face", "box" and, if it is predicted, "landmark": (float32 scalar, the weighted sum over anchors;
            float32 weights, whose number above 0 it is to be divided by). See `objective.global_means`.
        """
        if image_weights is not None:
            scale = image_weights[:, None]
            targets = targets._replace(
                face_weights=targets.face_weights * scale,
                box_weights=targets.box_weights * scale,
                landmark_weights=targets.landmark_weights * scale[..., None],
            )
        decoded = truth = None
        if self.box != "smooth_l1" or self.face == "quality_focal":
            decoded = decode_boxes(predictions["box"], anchors, self.variances)
            truth = decode_boxes(targets.boxes, anchors, self.variances)
        sums = {
            "face": (self.face_weight * self._face(targets, predictions, decoded, truth), targets.box_weights),
            "box": (self.box_weight * self._box(targets, predictions, decoded, truth), targets.box_weights),
        }
        if "landmark" in predictions:
            with_landmarks = tf.reduce_max(targets.landmark_weights, axis=-1)
            sums["landmark"] = (self.landmark_weight * self._landmark(targets, predictions), with_landmarks)
        return sums

    def _face(self, targets, predictions, decoded, truth):
        logits, weights = predictions["face"], targets.face_weights
        if self.face == "mined_cross_entropy":
            negatives = self.negatives_per_positive, self.negatives_without_faces
            scores = targets.scores if self.soft_scores else None
            return mined_cross_entropy(logits, targets.faces, weights, *negatives, scores)
        if self.face == "focal":
            return focal_loss(logits, targets.faces, weights)
        return quality_focal_loss(logits, targets.faces * paired_iou(decoded, truth), weights)

    def _box(self, targets, predictions, decoded, truth):
        if self.box == "smooth_l1":
            return smooth_l1(predictions["box"], targets.boxes, targets.box_weights)
        return (diou_loss if self.box == "diou" else giou_loss)(decoded, truth, targets.box_weights)

    def _landmark(self, targets, predictions):
        values, truth = predictions["landmark"], targets.landmarks
        if self.landmark_by_face_size:
            # Offsets are in anchor sides; the box target holds log(face side / anchor side) for width and height.
            log_size = tf.reduce_mean(targets.boxes[..., 2:], axis=-1) * self.variances[1]
            scale = tf.exp(-log_size)[..., None, None]
            values, truth = values * scale, truth * scale
        return smooth_l1(values, truth, targets.landmark_weights)

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DetectionLoss:
        return cls(**config)


def mined_cross_entropy(
    logits: tf.Tensor,
    faces: tf.Tensor,
    weights: tf.Tensor,
    negatives_per_positive: int,
    negatives_without_faces: int = 0,
    scores: tf.Tensor | None = None,
) -> tf.Tensor:
    """Softmax cross-entropy over faces and the hardest negatives of each image (as in SSD, arXiv 1512.02325).

    An image with P positives counts `negatives_per_positive * P` negatives of highest loss; of equal ones the first.

    Args:
        logits: `[N, A, 2]`, background and face.
        faces: `[N, A]`, 1 where an anchor is matched to a face.
        weights: `[N, A]`. They scale what an anchor costs, not how hard it is.
        negatives_per_positive: int; 7 in biubug6/Pytorch_Retinaface, 3 in the paper.
        negatives_without_faces: int. Negatives of an image without positives. The published recipes never show one, and
            0 gives it no loss; some are wanted to learn from photos without faces.
        scores: `[N, A]`, the face probability that an anchor with a face is to learn; `None` for 1.
    """
    difference = logits[..., 1] - logits[..., 0]
    positive = faces * weights
    costs = ops.softplus(-difference)
    if scores is not None:
        costs += (1 - scores) * difference
    positive_sum = tf.reduce_sum(positive * costs)
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
    """Focal loss (arXiv 1708.02002) over all anchors. Arguments as in `mined_cross_entropy`."""
    difference = logits[..., 1] - logits[..., 0]
    signed = tf.where(faces > 0, difference, -difference)
    balance = tf.where(faces > 0, alpha, 1 - alpha)
    return tf.reduce_sum(weights * balance * ops.sigmoid(-signed) ** gamma * ops.softplus(-signed))


def quality_focal_loss(logits: tf.Tensor, quality: tf.Tensor, weights: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """Quality focal loss (arXiv 2006.04388): the target of the score is the IoU of the box.

    `quality` `[N, A]`, in [0, 1], is the IoU of the predicted box with its face, 0 without one; it gets no gradient.
    """
    difference = logits[..., 1] - logits[..., 0]
    quality = tf.stop_gradient(quality)
    cross_entropy = ops.softplus(difference) - quality * difference
    return tf.reduce_sum(weights * tf.abs(quality - ops.sigmoid(difference)) ** beta * cross_entropy)


def smooth_l1(values: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Smooth L1 (Huber with delta 1, Fast R-CNN, arXiv 1504.08083) of `[..., D]`, with weights `[...]`."""
    error = tf.abs(values - targets)
    each = tf.where(error < 1, 0.5 * error**2, error - 0.5)
    return tf.reduce_sum(weights[..., None] * each)


def paired_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """IoU of boxes that lie side by side: `[..., 4]` `xyxy` twice -> `[...]`, 0 where there is no area."""
    intersection, union = _overlap(boxes_a, boxes_b)
    return intersection / tf.where(union > 0, union, 1)


def giou_loss(boxes: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sum of 1 - generalized IoU (arXiv 1902.09630) of boxes `[..., 4]`, `xyxy` pixels, with weights `[...]`."""
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
