"""Requests that TensorFlow Serving sends to a new version itself, so that no user's request is the slow first one."""

import importlib.util
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

WARM_UP_FILE = "tf_serving_warmup_requests"  # TensorFlow Serving's name for it
SIZE = (320, 240)  # width and height: the first call of any size is the slow one


def can_write() -> bool:
    """Whether the package with TensorFlow Serving's messages is installed: bool."""
    return importlib.util.find_spec("tensorflow_serving") is not None


def write_warm_up(folder: Path) -> None:
    """Write one request for each signature, a TFRecord file of `PredictionLog` messages.

    Without the extra `serving` nothing is written; TensorFlow Serving then starts cold.

    Args:
        folder: Path, a SavedModel's `assets.extra`.
    """
    if not can_write():
        return
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(folder / WARM_UP_FILE)) as writer:
        for signature, inputs in _requests().items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "retinaface"
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))


def _requests():
    """Signature -> inputs, of a photo with a face."""
    with files("retinaface_tf").joinpath("samples/astronaut.jpg").open("rb") as file:
        photo = Image.open(file).convert("RGB").resize(SIZE)
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG")
    images = np.asarray(photo)[None]
    windows = np.array([[0, 0, *SIZE]], np.float32)
    thresholds = {
        "score_threshold": np.array([0.5], np.float32),
        "nms_threshold": np.array([0.4], np.float32),
        "max_detections": np.array([750], np.int32),
    }
    contents = np.array([jpeg.getvalue()], object)
    return {
        "serving_default": {"images": images},
        "serve_bytes": {"image_bytes": contents},
        "detect": {"images": images, "windows": windows, **thresholds},
        "detect_bytes": {"image_bytes": contents, **thresholds},
    }
