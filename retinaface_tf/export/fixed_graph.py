"""The whole detector traced at one fixed size, in operations that TFLite has built in; or three parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf.geometry import boxes as box_ops
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks
from retinaface_tf.geometry.decoder import INCLUSIVE
from retinaface_tf.network.heads import FIRST_HEADS, columns_of

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


class FixedGraph:
    """A model's detection for single images of one size.

    It finds the same faces as `RetinaFace.detect`, as long as no more than `top_k` candidates pass the score threshold:
    here the best `top_k` anchors are taken first and those under the threshold silenced after, as shapes are static.

    Args:
        network: `RetinaFace`, folded.
        height, width: int, any positive.
        top_k: int, at most the number of anchors.
        max_detections: int, at most `top_k`.

    All that it returns are concrete functions with the weights as constants. Whole, it is a function of "images" uint8
    `[1, H, W, 3]`, "windows" float32 `[1, 4]`, "score_threshold" and "nms_threshold", float32 scalars, to a dict of
    "boxes" `[1, K, 4]`, "count" `[1]`, "landmarks" `[1, K, 5, 2]` and "scores" `[1, K]`, maybe "vertices".
    """

    def __init__(self, network: RetinaFace, height: int, width: int, top_k: int, max_detections: int) -> None:
        self.network = network
        self.size = height, width
        self.top_k = top_k
        self.max_detections = max_detections
        self.levels = list(network.anchor_generator.sizes)
        self.images = tf.TensorSpec([1, height, width, 3], tf.uint8, name="images")
        self.thresholds = [
            tf.TensorSpec([1, 4], tf.float32, name="windows"),
            tf.TensorSpec([], tf.float32, name="score_threshold"),
            tf.TensorSpec([], tf.float32, name="nms_threshold"),
        ]

    def whole(self) -> Any:
        """From the image to the faces."""
        part = keras.Model(self.network.inputs, self._heads("input"))

        def detect(images, windows, score_threshold, nms_threshold):
            features = tf.nest.flatten(part(images))  # Keras returns a single output without its list
            return self._faces(features, windows, score_threshold, nms_threshold)

        return _freeze(detect, [self.images, *self.thresholds])

    def before(self, layer: str) -> Any:
        """From the image to what a layer of the network returns."""
        part = keras.Model(self.network.inputs, self.network.get_layer(layer).output)
        return _freeze(lambda images: part(images), [self.images])

    def seam(self):
        """Where `features` ends and `after` begins: list of Keras tensors.

        That is what the heads read; or, with deformable convolutions, what the pyramid reads, since the places that
        those look at are not for eight bits.
        """
        if self.network.deformable:
            return list(self.network.get_layer("pyramid").input)
        return self._heads("input")

    def features(self, layer: str) -> Any:
        """From there to the maps of `seam`: a list."""
        start = self.network.get_layer(layer).output
        part = keras.Model(start, self.seam())
        shape = keras.Model(self.network.inputs, start).compute_output_shape((1, *self.size, 3))
        return _freeze(lambda features: part(features), [tf.TensorSpec(shape, tf.float32, name="features")])

    def after(self, shapes: Sequence[Sequence[int]]) -> Any:
        """From those maps, of such shapes, to the faces."""
        rest = keras.Model(self.seam(), self._heads("input")) if self.network.deformable else list
        specs = [tf.TensorSpec(shape, tf.float32, name=f"features_{i}") for i, shape in enumerate(shapes)]

        def detect(*inputs):
            features = tf.nest.flatten(rest(list(inputs[: len(specs)])))
            return self._faces(features, *inputs[len(specs) :])

        return _freeze(detect, [*specs, *self.thresholds])

    def _heads(self, end):
        return [getattr(head, end) for head in self._head_layers()]

    def _head_layers(self):
        """Of each stage (see `RetinaFace.stages`) those of all levels: list."""
        return [
            self.network.get_layer(f"{stage}heads_{level}") for stage in self.network.stages for level in self.levels
        ]

    def _faces(self, features, windows, score_threshold, nms_threshold):
        answers = [head(one)[0] for head, one in zip(self._head_layers(), features, strict=True)]
        count, columns = len(self.levels), columns_of(self.network.stages[""])
        *first, predictions = [tf.concat(answers[i : i + count], axis=0) for i in range(0, len(answers), count)]
        # The difference of every anchor's two logits as one product: picking columns of a long table is slow in LiteRT.
        margin = tf.constant([[-1.0], [1.0], *[[0.0]] * (predictions.shape[1] - 2)])
        top = tf.math.top_k((predictions @ margin)[:, 0], self.top_k)
        scores = tf.sigmoid(top.values)
        rows = tf.gather(predictions, top.indices)
        anchors = self.network.anchor_generator.at(top.indices, *self.size)
        for offsets in first:
            offsets = tf.gather(offsets, top.indices)[:, columns_of(FIRST_HEADS)["box"]]
            anchors = decode_boxes(offsets, anchors, self.network.variances)
        boxes = decode_boxes(rows[:, columns["box"]], anchors, self.network.variances)
        clipped = box_ops.clip(boxes, windows[0])
        usable = tf.where((scores >= score_threshold) & (box_ops.area(clipped) > 0), scores, -1.0)
        kept = tf.raw_ops.NonMaxSuppressionV5(
            boxes=boxes + INCLUSIVE,
            scores=usable,
            max_output_size=self.max_detections,
            iou_threshold=nms_threshold,
            score_threshold=-0.5,
            soft_nms_sigma=0.0,
            pad_to_max_output_size=True,
        )
        found = tf.cast(tf.range(self.max_detections) < kept.valid_outputs, tf.float32)
        indices = kept.selected_indices
        rows, anchors = tf.gather(rows, indices), tf.gather(anchors, indices)
        offsets = tf.reshape(rows[:, columns["landmark"]], [-1, 5, 2])
        landmarks = decode_landmarks(offsets, anchors, self.network.variances)
        faces = {
            "boxes": (tf.gather(clipped, indices) * found[:, None])[None],
            "scores": (tf.gather(usable, indices) * found)[None],
            "landmarks": (landmarks * found[:, None, None])[None],
            "count": kept.valid_outputs[None],
        }
        if self.network.vertex_decoder is not None:
            vertices = self.network.vertex_decoder(rows[:, columns["vertex"]], anchors)
            faces["vertices"] = (vertices * found[:, None, None])[None]
        return faces


def _freeze(function, signature):
    traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(traced)
