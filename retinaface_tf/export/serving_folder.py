"""The folder that TensorFlow Serving expects: numbered versions, and requests that warm a new one up.

It serves the highest of PATH/1, PATH/2, ..., and sends the warm-up requests to a new version itself, so that no user's
request is the slow first one.
"""

import importlib.util
import io
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from retinaface_tf.common.types import PathLike

WARM_UP_FILE = "tf_serving_warmup_requests"  # TensorFlow Serving's name for it
SIZE = (320, 240)  # width and height: the first call of any size is the slow one


def next_version(path: PathLike, replace: bool = False) -> Path:
    """The folder that a new version shall take.

    Args:
        path: of the folder of versions; need not exist.
        replace: bool. Take the place of the newest version rather than the number after it.

    Returns:
        Path, `path / number`; it exists only where it is to be replaced. Nothing is made.

    Raises:
        OSError: if `path` holds something that is no version, is a file, or can't be written.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: exists, and is a file. Expected the folder for numbered versions")
    entries = list(path.iterdir()) if path.is_dir() else []
    versions = [int(p.name) for p in entries if p.name.isdecimal() and p.is_dir()]
    if foreign := sorted(p.name for p in entries if not p.name.isdecimal() and not p.name.startswith(".")):
        raise FileExistsError(
            f"{path}: exists, and holds {foreign[0]}. Expected a new folder, or one of numbered versions"
        )
    newest = max(versions, default=0)
    target = path / str(max(1, newest if replace else newest + 1))
    ancestor = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise OSError(f"{path}: can't be written ({error.strerror or error})") from None
    return target


def can_write_warm_up() -> bool:
    """Whether the package with TensorFlow Serving's messages is installed: bool."""
    return importlib.util.find_spec("tensorflow_serving") is not None


def write_warm_up(folder: Path) -> None:
    """Write one request for each signature, a TFRecord file of `PredictionLog` messages.

    Without the extra `serving` nothing is written; TensorFlow Serving then starts cold.

    Args:
        folder: Path, a SavedModel's `assets.extra`.
    """
    if not can_write_warm_up():
        return
    import tensorflow as tf
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
