"""Decode raw predictions to faces in the graph: score threshold, top-k, decoding, NMS.

`decode_image` is the one place where an image's faces are chosen. The layer maps it over a batch;
`export.detector_graph` traces it for LiteRT, so it uses only operations that LiteRT has built in.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from retinaface_tf.geometry import boxes as box_ops
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks

INCLUSIVE = (0.0, 0.0, 1.0, 1.0)
TOP_K = 5000


@keras.saving.register_keras_serializable("retinaface_tf")
class DetectionDecoder(keras.layers.Layer):
    """Decode predictions at anchors into padded detections.

    Only candidates over the score threshold are decoded. The IoU of NMS counts pixels inclusively, as the published
    RetinaFace evaluation does: one is added to widths and heights.

    Args:
        variances: pair of floats. See `box_coder`.
        top_k: int. Maximum number of candidates per image passed to NMS.
    """

    def __init__(self, variances: tuple[float, float] = (0.1, 0.2), top_k: int = TOP_K, **kwargs: Any) -> None:
        # Pixels stay float32 under every policy.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.variances = (variances[0], variances[1])
        self.top_k = top_k

    def call(
        self,
        predictions: dict[str, tf.Tensor],
        anchors: tf.Tensor,
        windows: tf.Tensor,
        score_threshold: float | tf.Tensor = 0.5,
        nms_threshold: float | tf.Tensor = 0.4,
        max_detections: int | tf.Tensor = 750,
        vertices: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Detections of a batch.

        Args:
            predictions: dict of float32 tensors: "face" logits `[N, A, 2]`, "box" `[N, A, 4]` and "landmark"
                `[N, A, 5, 2]` offsets; of a cascade also "first_box" `[N, A, 4]`, the offsets from the anchors to the
                boxes that the other offsets start from.
            anchors: Float32 tensor `[A, 4]`, `xyxy` pixels.
            windows: Float tensor `[N, 4]`, `xyxy` pixels: the part of each image that is photo. Boxes are clipped to
                it after NMS, and those with nothing inside it dropped before.
            score_threshold: scalar. Lowest score kept.
            nms_threshold: scalar. IoU above which the lower-scoring box is suppressed.
            max_detections: scalar int. K below is this, but at most `top_k`.
            vertices: function of (rows `[K, D]` of the predictions "vertex", anchors `[K, 4]`) to vertices
                `[K, V, 3]`, such as a `VertexDecoder`; `None` for faces without.

        Returns:
            dict of tensors: "boxes" `[N, K, 4]` and "landmarks" `[N, K, 5, 2]` in pixels, "scores" `[N, K]`
            descending, all float32 and 0 beyond the count, and "count" `[N]` int32; maybe "vertices" `[N, K, V, 3]`.
        """
        kinds = ["box", "landmark"]
        kinds += ["first_box"] if "first_box" in predictions else []
        kinds += ["vertex"] if vertices is not None else []

        def decode_one(one):
            scores, window, offsets = one
            return decode_image(
                scores,
                lambda kind, rows: tf.gather(offsets[kind], rows),
                lambda rows: tf.gather(anchors, rows),
                window,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                max_detections=max_detections,
                variances=self.variances,
                top_k=self.top_k,
                cascade="first_box" in offsets,
                vertices=vertices,
            )

        signature = {
            "boxes": tf.TensorSpec([None, 4], tf.float32),
            "scores": tf.TensorSpec([None], tf.float32),
            "landmarks": tf.TensorSpec([None, 5, 2], tf.float32),
            "count": tf.TensorSpec([], tf.int32),
        }
        if vertices is not None:
            signature["vertices"] = tf.TensorSpec([None, None, 3], tf.float32)
        logits = predictions["face"]
        scores = ops.sigmoid(logits[..., 1] - logits[..., 0])  # the softmax of two
        offsets = {kind: predictions[kind] for kind in kinds}
        return tf.map_fn(decode_one, (scores, ops.cast(windows, "float32"), offsets), fn_output_signature=signature)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variances": list(self.variances), "top_k": self.top_k}


def decode_image(
    scores: tf.Tensor,
    offsets_at: Callable[[str, tf.Tensor], tf.Tensor],
    anchors_at: Callable[[tf.Tensor], tf.Tensor],
    window: tf.Tensor,
    *,
    score_threshold: float | tf.Tensor,
    nms_threshold: float | tf.Tensor,
    max_detections: int | tf.Tensor,
    variances: tuple[float, float],
    top_k: int,
    cascade: bool = False,
    vertices: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    static: bool = False,
) -> dict[str, tf.Tensor]:
    """Faces of one image.

    Args:
        scores: Float32 tensor `[A]`, the probability of a face at every anchor.
        offsets_at: function of (kind, int32 tensor `[M]` of anchors' numbers) to those rows of the predictions "box"
            `[M, 4]`, "landmark" `[M, 5, 2]` and, where they are needed, "first_box" `[M, 4]` and "vertex" `[M, D]`.
        anchors_at: function of such numbers to anchors `[M, 4]`.
        window: Float32 tensor `[4]`.
        score_threshold, nms_threshold, max_detections, vertices: as in `DetectionDecoder.call`.
        variances, top_k: as in `DetectionDecoder`.
        cascade: bool. Whether there is a "first_box".
        static: bool. Keep every shape independent of the image, for runtimes that want it: the best `top_k` anchors
            are decoded whatever their scores. `top_k` and `max_detections` must then be ints, `top_k` at most `A` and
            `max_detections` at most `top_k`. The faces are the same, as long as no more than `top_k` anchors reach the
            score threshold.

    Returns:
        dict of tensors of a single image, as `DetectionDecoder.call` returns them for a batch.
    """
    if static:
        most = max_detections
        top = tf.math.top_k(scores, top_k)
        candidates = top.indices
    else:
        most = tf.minimum(tf.convert_to_tensor(max_detections, tf.int32), top_k)
        candidates = tf.cast(tf.where(scores >= score_threshold)[:, 0], tf.int32)
        top = tf.math.top_k(tf.gather(scores, candidates), tf.minimum(top_k, tf.size(candidates)))
        candidates = tf.gather(candidates, top.indices)
    anchors = anchors_at(candidates)
    if cascade:
        anchors = decode_boxes(offsets_at("first_box", candidates), anchors, variances)
    boxes = decode_boxes(offsets_at("box", candidates), anchors, variances)
    clipped = box_ops.clip(boxes, window)
    usable = box_ops.area(clipped) > 0
    if static:
        usable &= top.values >= score_threshold
    # A score below every threshold keeps a box from being selected.
    usable_scores = tf.where(usable, top.values, -1.0)
    kept = tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes + INCLUSIVE,
        scores=usable_scores,
        max_output_size=most,
        iou_threshold=nms_threshold,
        score_threshold=-0.5,
        soft_nms_sigma=0.0,
        pad_to_max_output_size=True,  # the form that LiteRT has
    )
    count = kept.valid_outputs
    rows = kept.selected_indices if static else kept.selected_indices[:count]

    def complete(values):
        """Faces' values with zeros beyond the count: `[K, ...]`."""
        rank = values.shape.rank
        if static:
            found = tf.cast(tf.range(most) < count, tf.float32)
            return values * tf.reshape(found, [-1, *[1] * (rank - 1)])
        return tf.pad(values, [[0, most - count], *[[0, 0]] * (rank - 1)])

    chosen, anchors = tf.gather(candidates, rows), tf.gather(anchors, rows)
    faces = {
        "boxes": complete(tf.gather(clipped, rows)),
        "scores": complete(tf.gather(usable_scores, rows)),
        "landmarks": complete(decode_landmarks(offsets_at("landmark", chosen), anchors, variances)),
        "count": count,
    }
    if vertices is not None:
        faces["vertices"] = complete(vertices(offsets_at("vertex", chosen), anchors))
    return faces
