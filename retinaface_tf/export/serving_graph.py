"""The detector as the three functions of a SavedModel, every input and output with the batch in front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from retinaface_tf.export.image_bytes import decode_or_flag
from retinaface_tf.geometry.decoder import DetectionDecoder

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions


IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
WINDOWS = tf.TensorSpec([None, 4], tf.float32, name="windows")
CONTENTS = tf.TensorSpec([None], tf.string, name="image_bytes")
THRESHOLDS = (
    tf.TensorSpec([None], tf.float32, name="score_threshold"),
    tf.TensorSpec([None], tf.float32, name="nms_threshold"),
    tf.TensorSpec([None], tf.int32, name="max_detections"),
)
PADDED = ("boxes", "scores", "landmarks", "vertices")
OUTPUTS: dict[str, tuple[list[Any], Any]] = {
    "boxes": ([None, None, 4], tf.float32),
    "scores": ([None, None], tf.float32),
    "landmarks": ([None, None, 5, 2], tf.float32),
    "count": ([None], tf.int32),
}
OF_BYTES: dict[str, tuple[list[Any], Any]] = {"size": ([None, 2], tf.int32), "error": ([None], tf.bool)}


def outputs_of(model: RetinaFace) -> dict[str, tuple[list[Any], Any]]:
    """What a model's signatures return: dict name -> (shape, dtype)."""
    if model.topology is None:
        return OUTPUTS
    return {**OUTPUTS, "vertices": ([None, None, len(model.topology), 3], tf.float32)}


def build_signatures(model: RetinaFace, options: ExportOptions) -> dict[str, Any]:
    """The functions of a SavedModel, traced.

    Thresholds are inputs of signatures of their own, one number an image, since TensorFlow Serving wants all inputs
    of a signature in each request, and merges requests along the first axis of each. A batch of no image is refused by
    TensorFlow's convolutions.

    Args:
        model: `RetinaFace`.
        options: `ExportOptions`.

    Returns:
        dict signature -> function for `tf.saved_model.save`: "serving_default" of `images`, "serve_bytes" of
        `image_bytes`, "detect" of `images`, `windows` and the thresholds, "detect_bytes" of `image_bytes` and those.
    """
    run = _trace(model, DetectionDecoder(model.variances, options.top_k))
    outputs = outputs_of(model)

    def run_whole(images, *thresholds):
        """Images without a border: the window is all of them."""
        shape = tf.shape(images)
        window = tf.cast(tf.stack([0, 0, shape[2], shape[1]]), tf.float32)
        return run(images, tf.repeat(window[None], shape[0], axis=0), *thresholds)

    def run_on_bytes(one):
        image, error = decode_or_flag(one[0])
        outputs = run_whole(image[None], *(threshold[None] for threshold in one[1:]))
        found = {**{name: value[0] for name, value in outputs.items()}, "size": tf.shape(image)[:2]}
        # The pixel that stands for what could not be decoded is no photo, whatever the network sees in it.
        return {**{name: tf.where(error, tf.zeros_like(value), value) for name, value in found.items()}, "error": error}

    def run_on_all_bytes(image_bytes, *thresholds):
        longest = tf.minimum(tf.reduce_max(thresholds[2]), options.top_k)
        specs = {name: tf.TensorSpec(shape[1:], dtype) for name, (shape, dtype) in {**outputs, **OF_BYTES}.items()}
        # One photo after the other: they differ in size, and each may need a good part of the memory.
        return tf.map_fn(
            lambda one: _lengthen(run_on_bytes(one), longest),
            (image_bytes, *thresholds),
            parallel_iterations=1,
            fn_output_signature=specs,
        )

    def defaults(batch):
        values = (options.score_threshold, options.nms_threshold, options.max_detections)
        return [tf.fill(tf.shape(batch)[:1], tf.cast(v, s.dtype)) for v, s in zip(values, THRESHOLDS, strict=True)]

    def signature(function, *inputs):
        return tf.function(function, input_signature=inputs, autograph=False)

    return {
        "serving_default": signature(lambda images: run_whole(images, *defaults(images)), IMAGES),
        "serve_bytes": signature(lambda image_bytes: run_on_all_bytes(image_bytes, *defaults(image_bytes)), CONTENTS),
        "detect": signature(run, IMAGES, WINDOWS, *THRESHOLDS),
        "detect_bytes": signature(run_on_all_bytes, CONTENTS, *THRESHOLDS),
    }


def _trace(model: RetinaFace, decoder: DetectionDecoder) -> Any:
    """The detection with thresholds for each image, weights as constants (see `RetinaFace.constant_weights`)."""

    @tf.function(input_signature=[IMAGES, WINDOWS, *THRESHOLDS], autograph=False)
    def detect(images, windows, score_threshold, nms_threshold, max_detections):
        anchors = model.anchor_generator(tf.shape(images)[1], tf.shape(images)[2])
        longest = tf.minimum(tf.reduce_max(max_detections), decoder.top_k)

        def decode_one(one):
            predictions, window, score, nms, most = one
            batch = {name: value[None] for name, value in predictions.items()}
            found = decoder(
                batch,
                anchors,
                window[None],
                score_threshold=score,
                nms_threshold=nms,
                max_detections=most,
                vertices=model.vertex_decoder,
            )
            return _lengthen({name: value[0] for name, value in found.items()}, longest)

        with model.constant_weights() as predict:
            return tf.map_fn(
                decode_one,
                (predict(images), windows, score_threshold, nms_threshold, max_detections),
                fn_output_signature={
                    name: tf.TensorSpec(shape[1:], dtype) for name, (shape, dtype) in outputs_of(model).items()
                },
            )

    return detect.get_concrete_function()


def _lengthen(found, length):
    """The outputs of one image padded to the longest of the batch: images may differ in their `max_detections`."""
    missing = length - tf.shape(found["scores"])[0]
    return {
        name: tf.pad(value, [[0, missing], *[[0, 0]] * (value.shape.rank - 1)]) if name in PADDED else value
        for name, value in found.items()
    }
