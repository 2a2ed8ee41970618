"""Export a model as a SavedModel: its serving functions in a numbered folder, with warm-up requests."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from PIL import Image

from retinaface_tf.common.types import PathLike
from retinaface_tf.export.image_bytes import decode_or_flag
from retinaface_tf.export.metadata import describe, to_json
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
    """Outputs of the signatures: dict of name to (shape, dtype)."""
    if model.topology is None:
        return OUTPUTS
    return {**OUTPUTS, "vertices": ([None, None, len(model.topology), 3], tf.float32)}


def build_signatures(model: RetinaFace, options: ExportOptions) -> dict[str, Any]:
    """The traced functions of a SavedModel.

    Thresholds are inputs of signatures of their own, one number an image, since TensorFlow Serving wants all inputs
    of a signature in each request, and merges requests along the first axis of each. A batch of no image is refused by
    TensorFlow's convolutions.

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


WARM_UP_FILE = "tf_serving_warmup_requests"  # TensorFlow Serving's name for it
SIZE = (320, 240)  # width and height: the first call of any size is the slow one


def next_version(path: PathLike, replace: bool = False) -> Path:
    """The folder of the next version below `path`, or with `replace` that of the newest. Nothing is made.

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
            f"{path}: exists, and contains {foreign[0]}. Expected a new folder, or one of numbered versions"
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
    """Write one request for each signature, a TFRecord file of `PredictionLog` messages, into `assets.extra`.

    Without the package `tensorflow-serving-api` nothing is written; TensorFlow Serving then starts cold.
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


EXTRA = "assets.extra"  # TensorFlow's folder for what belongs to a SavedModel without being of its graph
METADATA_FILE = "retinaface.json"


def export_saved_model(model: RetinaFace, path: PathLike, options: ExportOptions, replace: bool = False) -> Path:
    """Write a new version below a folder, atomically.

    Args:
        model: `RetinaFace`.
        path: folder of versions, made if need be: the SavedModel becomes `path/1`, or the number after the highest.
        options: `ExportOptions`. `size` must be `None`: a SavedModel takes images of any size.
        replace: bool. Take the place of the highest version instead.

    Returns:
        Path of the version.

    Raises:
        ValueError: for a `size`.
        OSError: if the folder can't be written or holds something else.
    """
    if options.size is not None:
        raise ValueError(f"a SavedModel takes images of any size: leave `size` out. Received: size={options.size}")
    target = next_version(path, replace)
    existed = target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name without a number is no version: TensorFlow Serving passes it over while it is being written.
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    old = beside.with_name(f"{beside.name}-old")
    try:
        _write(model, beside, options)
        _make_readable(beside)
        if target.exists():
            target.rename(old)
        beside.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if not existed and not any(target.parent.iterdir()):
            target.parent.rmdir()
    return target


def _write(model, folder, options):
    module = tf.Module()
    tf.saved_model.save(module, folder, signatures=build_signatures(model, options))
    extra = folder / EXTRA
    extra.mkdir()
    (extra / METADATA_FILE).write_text(to_json(describe(model, options)), "utf-8")
    write_warm_up(extra)


def _make_readable(folder):
    """Modes as `umask` has them: `mkdtemp`'s folder is for its owner alone, and a server is another user."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
