"""The detector as one traced graph: pixels in, padded detections out, for any size with a single trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf.geometry.decoder import DetectionDecoder

if TYPE_CHECKING:
    import keras

    from retinaface_tf.detector import RetinaFace


SIGNATURE = {
    "images": tf.TensorSpec([None, None, None, 3], tf.uint8),
    "windows": tf.TensorSpec([None, 4], tf.float32),
    "score_threshold": tf.TensorSpec([], tf.float32),
    "nms_threshold": tf.TensorSpec([], tf.float32),
    "max_detections": tf.TensorSpec([], tf.int32),
}


def build_inference(model: RetinaFace) -> Callable[..., dict[str, tf.Tensor]]:
    """Trace a model's detection once, batch normalisation folded in and weights as constants.

    As constants the weights are brought once into the order that the CPU's kernels want, and the 107 reads of
    variables go: a tenth of the time of a forward pass on two threads.

    Args:
        model: `RetinaFace`.

    Returns:
        A function of the tensors in `SIGNATURE` that returns the tensors of `DetectionDecoder`, as a dict. It keeps
        the weights that the model has now.
    """
    network = model if model.folded else model.fold()
    decoder = DetectionDecoder(model.variances)

    @tf.function(input_signature=list(SIGNATURE.values()), autograph=False)
    def detect(images, windows, score_threshold, nms_threshold, max_detections):
        predictions = network(images, training=False)
        anchors = model.anchor_generator(tf.shape(images)[1], tf.shape(images)[2])
        return decoder(
            predictions,
            anchors,
            windows,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            vertices=network.vertex_decoder,
        )

    traced = detect.get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    names = sorted(traced.structured_outputs)  # the order in which a dict is flattened

    def run(images, windows, score_threshold, nms_threshold, max_detections):
        outputs = frozen(
            tf.constant(images),
            tf.constant(windows),
            tf.constant(score_threshold, tf.float32),
            tf.constant(nms_threshold, tf.float32),
            tf.constant(max_detections, tf.int32),
        )
        return dict(zip(names, outputs, strict=True))

    run.traces = detect.experimental_get_tracing_count  # type: ignore[attr-defined]
    return run


def trace_sums(variables: Sequence[keras.Variable]) -> Callable[[], tf.Tensor]:
    """A traced function without arguments that returns the sum of each Keras variable, float32 `[V]`."""

    @tf.function(autograph=False)
    def sums():
        return tf.stack([tf.reduce_sum(tf.cast(variable.value, tf.float32)) for variable in variables])

    return sums
