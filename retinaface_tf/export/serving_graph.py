"""The detector as the three functions of a SavedModel, every input and output with the batch in front."""

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf.export.image_bytes import decode_or_flag
from retinaface_tf.geometry.decoder import DetectionDecoder

THRESHOLDS = {
    "score_threshold": tf.TensorSpec([None], tf.float32, name="score_threshold"),
    "nms_threshold": tf.TensorSpec([None], tf.float32, name="nms_threshold"),
    "max_detections": tf.TensorSpec([None], tf.int32, name="max_detections"),
}
IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
WINDOWS = tf.TensorSpec([None, 4], tf.float32, name="windows")
CONTENTS = tf.TensorSpec([None], tf.string, name="image_bytes")


def build_signatures(model, options):
    """The functions of a SavedModel, traced.

    Thresholds are inputs of a signature of their own, one number an image, since TensorFlow Serving wants all inputs
    of a signature in each request, and merges requests along the first axis of each.

    Args:
        model: `RetinaFace`.
        options: `ExportOptions` with `max_detections` filled.

    Returns:
        dict signature -> function for `tf.saved_model.save`: "serving_default" of `images`, "serve_bytes" of
        `image_bytes`, and "detect" of `images`, `windows` and the thresholds.
    """
    core = _freeze(model, options.top_k)
    names = sorted(("boxes", "scores", "landmarks", "count"))  # the order in which a dict is flattened

    def run(*inputs):
        return dict(zip(names, core(*inputs), strict=True))

    def run_with_defaults(images):
        shape = tf.shape(images)
        window = tf.cast(tf.stack([0, 0, shape[2], shape[1]]), tf.float32)
        values = (options.score_threshold, options.nms_threshold, options.max_detections)
        thresholds = [tf.fill(shape[:1], tf.cast(v, s.dtype)) for v, s in zip(values, THRESHOLDS.values(), strict=True)]
        return run(images, tf.repeat(window[None], shape[0], axis=0), *thresholds)

    def run_on_bytes(content):
        image, error = decode_or_flag(content)
        outputs = run_with_defaults(image[None])
        found = {name: value[0] for name, value in outputs.items()}
        # The pixel that stands for a photo without pixels is no photo: nothing is in it, whatever the network says.
        return {**{name: tf.where(error, tf.zeros_like(value), value) for name, value in found.items()}, "error": error}

    @tf.function(input_signature=[IMAGES], autograph=False)
    def serving_default(images):
        return run_with_defaults(images)

    @tf.function(input_signature=[CONTENTS], autograph=False)
    def serve_bytes(image_bytes):
        specs = {name: tf.TensorSpec(shape[1:], dtype) for name, (shape, dtype) in _outputs().items()}
        # One photo after the other: they differ in size, and each may need a good part of the memory.
        return tf.map_fn(
            run_on_bytes,
            image_bytes,
            parallel_iterations=1,
            fn_output_signature={**specs, "error": tf.TensorSpec([], tf.bool)},
        )

    @tf.function(input_signature=[IMAGES, WINDOWS, *THRESHOLDS.values()], autograph=False)
    def detect(images, windows, score_threshold, nms_threshold, max_detections):
        return run(images, windows, score_threshold, nms_threshold, max_detections)

    return {"serving_default": serving_default, "serve_bytes": serve_bytes, "detect": detect}


def _outputs():
    return {
        "boxes": ([None, None, 4], tf.float32),
        "scores": ([None, None], tf.float32),
        "landmarks": ([None, None, 5, 2], tf.float32),
        "count": ([None], tf.int32),
    }


def _freeze(model, top_k):
    """The detection with thresholds for each image, weights as constants (see `inference.build_inference`)."""
    network = model if model.folded else model.fold()
    decoder = DetectionDecoder(model.variances, top_k)

    @tf.function(input_signature=[IMAGES, WINDOWS, *THRESHOLDS.values()], autograph=False)
    def detect(images, windows, score_threshold, nms_threshold, max_detections):
        predictions = network(images, training=False)
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        anchors = model.anchor_generator(height, width)
        longest = tf.maximum(tf.reduce_max(max_detections), 0)  # of no image it is the least of all integers

        def decode_one(one):
            predictions, window, score, nms, most = one
            batch = {name: value[None] for name, value in predictions.items()}
            found = decoder(
                batch, anchors, window[None], score_threshold=score, nms_threshold=nms, max_detections=most
            )
            return {
                name: value[0] if name == "count" else _lengthen(value[0], longest) for name, value in found.items()
            }

        return tf.map_fn(
            decode_one,
            (predictions, windows, score_threshold, nms_threshold, max_detections),
            fn_output_signature={name: tf.TensorSpec(shape[1:], dtype) for name, (shape, dtype) in _outputs().items()},
        )

    return convert_variables_to_constants_v2(detect.get_concrete_function())


def _lengthen(value, length):
    missing = length - tf.shape(value)[0]
    return tf.pad(value, [[0, missing], *[[0, 0]] * (value.shape.rank - 1)])
