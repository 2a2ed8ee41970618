"""Which of the network's answers are faces? Threshold, top-k, decoding and non-maximum suppression, in the graph."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from retinaface_tf.geometry import boxes as box_ops
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks

INCLUSIVE = (0.0, 0.0, 1.0, 1.0)


@keras.saving.register_keras_serializable("retinaface_tf")
class DetectionDecoder(keras.layers.Layer):
    """Predictions and anchors in, padded detections out.

    Only candidates over the score threshold are decoded. Overlap in the suppression is measured as the published
    RetinaFace evaluation does, with pixels counted inclusively: one is added to widths and heights.

    Args:
        variances: pair of floats. See `box_coder`.
        top_k: int. At most so many candidates of an image enter the suppression.
    """

    def __init__(self, variances: tuple[float, float] = (0.1, 0.2), top_k: int = 5000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variances = tuple(variances)
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
                `[N, A, 5, 2]` offsets; with "first_box" `[N, A, 4]`, offsets from the anchors to the boxes from which
                the others lead on.
            anchors: Float32 tensor `[A, 4]`, `xyxy` pixels.
            windows: Float tensor `[N, 4]`, `xyxy` pixels: the part of each image that is photo. Boxes are clipped to
                it after the suppression, and those with nothing inside it dropped before.
            score_threshold: scalar. Lowest score kept.
            nms_threshold: scalar. Of two boxes that overlap more, the one with the lower score goes.
            max_detections: scalar int, K below.
            vertices: function of (rows `[K, D]` of the predictions "vertex", anchors `[K, 4]`) to vertices
                `[K, V, 3]`, such as a `VertexDecoder`; `None` for faces without.

        Returns:
            dict of tensors: "boxes" `[N, K, 4]` and "landmarks" `[N, K, 5, 2]` in pixels, "scores" `[N, K]`
            descending, all float32 and 0 beyond the count, and "count" `[N]` int32; maybe "vertices" `[N, K, V, 3]`.
        """
        max_detections = tf.convert_to_tensor(max_detections, tf.int32)

        def decode_one(one):
            scores, box_offsets, landmark_offsets, window, more = one
            candidates = tf.where(scores >= score_threshold)[:, 0]
            top = tf.math.top_k(tf.gather(scores, candidates), tf.minimum(self.top_k, tf.size(candidates)))
            candidates = tf.gather(candidates, top.indices)
            own_anchors = tf.gather(anchors, candidates)
            if "first_box" in more:
                own_anchors = decode_boxes(tf.gather(more["first_box"], candidates), own_anchors, self.variances)
            boxes = decode_boxes(tf.gather(box_offsets, candidates), own_anchors, self.variances)
            clipped = box_ops.clip(boxes, window)
            # A score below every threshold keeps a box that lies outside the photo from being selected.
            usable = tf.where(box_ops.area(clipped) > 0, top.values, -1.0)
            kept = tf.image.non_max_suppression(
                boxes + INCLUSIVE, usable, max_detections, nms_threshold, score_threshold=-0.5
            )
            chosen, own_anchors = tf.gather(candidates, kept), tf.gather(own_anchors, kept)
            landmarks = decode_landmarks(tf.gather(landmark_offsets, chosen), own_anchors, self.variances)
            missing = max_detections - tf.size(kept)
            found = {
                "boxes": tf.pad(tf.gather(clipped, kept), [[0, missing], [0, 0]]),
                "scores": tf.pad(tf.gather(usable, kept), [[0, missing]]),
                "landmarks": tf.pad(landmarks, [[0, missing], [0, 0], [0, 0]]),
                "count": tf.size(kept),
            }
            if vertices is not None:
                found["vertices"] = vertices(tf.gather(more["vertex"], chosen), own_anchors)
                found["vertices"] = tf.pad(found["vertices"], [[0, missing], [0, 0], [0, 0]])
            return found

        signature = {
            "boxes": tf.TensorSpec([None, 4], tf.float32),
            "scores": tf.TensorSpec([None], tf.float32),
            "landmarks": tf.TensorSpec([None, 5, 2], tf.float32),
            "count": tf.TensorSpec([], tf.int32),
        }
        if vertices is not None:
            signature["vertices"] = tf.TensorSpec([None, None, 3], tf.float32)
        more = [name for name, wanted in (("first_box", True), ("vertex", vertices is not None)) if wanted]
        logits = predictions["face"]
        return tf.map_fn(
            decode_one,
            (
                ops.sigmoid(logits[..., 1] - logits[..., 0]),  # the softmax of two
                predictions["box"],
                predictions["landmark"],
                ops.cast(windows, "float32"),
                {name: predictions[name] for name in more if name in predictions},
            ),
            fn_output_signature=signature,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variances": list(self.variances), "top_k": self.top_k}
