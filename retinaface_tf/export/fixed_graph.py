"""The whole detector traced at one fixed size, in operations that TFLite has built in."""

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf.geometry import boxes as box_ops
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks
from retinaface_tf.geometry.decoder import INCLUSIVE

ROW = 16  # numbers for each anchor: two logits, four box offsets, ten landmark offsets


def trace_fixed(model, height, width, top_k, max_detections):
    """Trace a model's detection for single images of one size, its weights as constants.

    The same faces as `build_inference`, as long as no more than `top_k` candidates pass the score threshold: here the
    best `top_k` anchors are taken first and those under the threshold silenced after, since shapes are static.

    Args:
        model: `RetinaFace`.
        height, width: int, any positive.
        top_k: int, at most the number of anchors.
        max_detections: int, at most `top_k`.

    Returns:
        Frozen concrete function of "images" uint8 `[1, H, W, 3]`, "windows" float32 `[1, 4]`, "score_threshold" and
        "nms_threshold", float32 scalars, to a dict of "boxes" `[1, K, 4]`, "count" `[1]`, "landmarks" `[1, K, 5, 2]`
        and "scores" `[1, K]`, in this order.
    """
    network = model if model.folded else model.fold()
    heads = keras.Model(
        network.inputs, [network.get_layer(f"heads_{level}").output for level in network.anchor_generator.sizes]
    )
    # The difference of every anchor's two logits as one product: picking columns of a long table is slow in LiteRT.
    face_margin = tf.constant([[-1.0], [1.0], *[[0.0]] * (ROW - 2)])
    signature = [
        tf.TensorSpec([1, height, width, 3], tf.uint8, name="images"),
        tf.TensorSpec([1, 4], tf.float32, name="windows"),
        tf.TensorSpec([], tf.float32, name="score_threshold"),
        tf.TensorSpec([], tf.float32, name="nms_threshold"),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def detect(images, windows, score_threshold, nms_threshold):
        predictions = tf.concat([level[0] for level in heads(images, training=False)], axis=0)
        top = tf.math.top_k((predictions @ face_margin)[:, 0], top_k)
        scores = tf.sigmoid(top.values)
        rows = tf.gather(predictions, top.indices)
        anchors = model.anchor_generator.at(top.indices, height, width)
        boxes = decode_boxes(rows[:, 2:6], anchors, model.variances)
        clipped = box_ops.clip(boxes, windows[0])
        usable = tf.where((scores >= score_threshold) & (box_ops.area(clipped) > 0), scores, -1.0)
        kept = tf.raw_ops.NonMaxSuppressionV5(
            boxes=boxes + INCLUSIVE,
            scores=usable,
            max_output_size=max_detections,
            iou_threshold=nms_threshold,
            score_threshold=-0.5,
            soft_nms_sigma=0.0,
            pad_to_max_output_size=True,
        )
        found = tf.cast(tf.range(max_detections) < kept.valid_outputs, tf.float32)
        indices = kept.selected_indices
        offsets = tf.reshape(tf.gather(rows, indices)[:, 6:], [-1, 5, 2])
        landmarks = decode_landmarks(offsets, tf.gather(anchors, indices), model.variances)
        return {
            "boxes": (tf.gather(clipped, indices) * found[:, None])[None],
            "scores": (tf.gather(usable, indices) * found)[None],
            "landmarks": (landmarks * found[:, None, None])[None],
            "count": kept.valid_outputs[None],
        }

    return convert_variables_to_constants_v2(detect.get_concrete_function())
