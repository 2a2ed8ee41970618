"""One `detect` for every artifact: a SavedModel, a `.tflite` or an `.onnx` answers as the model in Python does.

A runtime is an object with `metadata`, a dict, and `run`, a function as `inference.predictor.detect` wants it. No
runtime imports Keras, and only that of SavedModel TensorFlow; each is imported when its format is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.types import ImageSource, PathLike
from retinaface_tf.dense.topology import Topology
from retinaface_tf.inference.predictor import as_photos, check_options, detect

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


EXPECTED = "a preset's name, a .keras file, a SavedModel folder, a .tflite or an .onnx file"


def load(path: PathLike, *, threads: int | None = None, runtime: str | None = None) -> RetinaFace | Detector:
    """Open a model, whatever it is, for its `detect`.

    Args:
        path: a preset's name or folder, or the path of a `.keras` file, of a SavedModel (the folder of a version, or
            the folder of its versions, of which the newest counts), of a `.tflite` or an `.onnx` file.
        threads: int or `None` for the runtime's own choice. Of `.tflite` and `.onnx`; TensorFlow has one number for
            the whole process (`tf.config.threading`).
        runtime: "onnxruntime" or "openvino", of an `.onnx`; `None` is ONNX Runtime there.

    Returns:
        `RetinaFace` for a preset or a `.keras` file, else `Detector`. Both have the same `detect`.

    Raises:
        ValueError: for what is none of these, naming what is expected; for an artifact of something else.
        OSError: if it can't be read.
        ImportError: naming the extra to install, if the runtime is missing.
    """
    kind = kind_of(path)
    if threads is not None and (kind not in ("tflite", "onnx") or threads < 1):
        raise ValueError(
            f"`threads` must be a positive integer, for a .tflite or .onnx. Received: {threads} for {path}"
        )
    if runtime is not None and (kind != "onnx" or runtime not in ("onnxruntime", "openvino")):
        raise ValueError(
            f'`runtime` must be "onnxruntime" or "openvino", for an .onnx. Received: {runtime!r} for {path}'
        )
    if kind == "tflite":
        from retinaface_tf.inference.tflite import TFLiteModel

        return Detector(TFLiteModel(path, threads=threads))
    if kind == "onnx" and runtime == "openvino":
        from retinaface_tf.inference.openvino import OpenVINOModel

        return Detector(OpenVINOModel(path, threads=threads))
    if kind == "onnx":
        from retinaface_tf.inference.onnx import ONNXModel

        return Detector(ONNXModel(path, threads=threads))
    if kind == "saved_model":
        with tensorflow_needed(f"{path}: a SavedModel"):
            from retinaface_tf.inference.saved_model import SavedModel

        return Detector(SavedModel(path))
    with tensorflow_needed(f"{path}: a {'preset' if kind == 'preset' else '.keras file'}"):
        from retinaface_tf.detector import RetinaFace

    return RetinaFace.from_preset(str(path))


def kind_of(path: PathLike) -> str:
    """What a path or name is, without opening it: "preset", "keras", "saved_model", "tflite" or "onnx".

    Raises:
        ValueError: for another suffix, a folder without a SavedModel, or an unknown name.
        FileNotFoundError: if there is no such file.
    """
    from retinaface_tf import presets

    if str(path) in presets.names():
        return "preset"
    path = Path(path)
    suffix = path.suffix.lower()
    if (path / presets.CARD).is_file():
        return "preset"
    if path.is_dir():
        if newest_version(path) is None:
            raise ValueError(f"{path}: no SavedModel in this folder, nor in its numbered folders. Expected {EXPECTED}")
        return "saved_model"
    if suffix in (".keras", ".tflite", ".onnx"):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file. Expected {EXPECTED}")
        return suffix[1:]
    raise ValueError(f"{path}: unknown model. Expected {EXPECTED}; presets: {', '.join(presets.names())}")


def needs_tensorflow(path: PathLike) -> bool:
    """Whether opening this takes TensorFlow: bool. Raises as `kind_of`."""
    return kind_of(path) not in ("tflite", "onnx")


def newest_version(folder: PathLike) -> Path | None:
    """The SavedModel that a folder is or holds: Path, or `None`. Of numbered folders the highest counts."""
    folder = Path(folder)
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and (p / "saved_model.pb").is_file()]
    return max(versions, key=lambda p: int(p.name), default=None)


class Detector:
    """An artifact with the `detect` of `RetinaFace`.

    Args:
        runtime: object with `metadata`, a dict as `export.metadata.describe` makes it, and `run`, a function of
            (images uint8 `[N, H, W, 3]`, windows float32 `[N, 4]`, score_threshold, nms_threshold, max_detections)
            that returns a dict of arrays "boxes", "scores", "landmarks" and "count", maybe "vertices", as
            `DetectionDecoder` does. It takes images of any size (`fixed_size.at_size` brings them to its own) and
            ignores the thresholds that the metadata calls fixed.
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.metadata = runtime.metadata
        dense = self.metadata.get("architecture", {}).get("dense")
        self.topology = Topology.from_dict(dense["topology"]) if dense else None

    def detect(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        resize: tuple[int, int] | None = None,
        batch_size: int = 8,
        close_ups: bool = True,
    ) -> Any:
        """Find the faces of a photo, or of each photo of a list.

        Args and result: as in `RetinaFace.detect`. `None` for a threshold or `max_detections` is what the artifact was
        exported with, as a rule `RetinaFace`'s defaults.

        Raises:
            ImageError: (a ValueError) naming what can't be read as a photo.
            ValueError: naming the option that is out of range, or that this artifact has fixed otherwise.
        """
        thresholds = self.thresholds(score_threshold, nms_threshold, max_detections)
        photos, single = as_photos(images)
        results = detect(
            self._run,
            photos,
            fill=self.metadata["fill"],
            largest_anchor=self.metadata["largest_anchor"],
            resize=resize,
            batch_size=batch_size,
            close_ups=close_ups,
            topology=self.topology,
            **thresholds,
        )
        return results[0] if single else results

    def thresholds(
        self,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> dict[str, Any]:
        """The thresholds of a call of `detect` that leaves out those that are `None`.

        Returns:
            dict "score_threshold", "nms_threshold", "max_detections".

        Raises:
            ValueError: naming the first that is out of range, or that the artifact can't answer to.
        """
        asked = {"score_threshold": score_threshold, "nms_threshold": nms_threshold, "max_detections": max_detections}
        thresholds: dict[str, Any] = {
            name: self.metadata[name] if value is None else value for name, value in asked.items()
        }
        check_options(**thresholds, resize=None, batch_size=1)
        for name in self.metadata["fixed"]:
            own, wish = self.metadata[name], thresholds[name]
            looser = {"score_threshold": wish < own, "nms_threshold": wish != own, "max_detections": wish > own}
            if looser[name]:
                raise ValueError(
                    f"`{name}` is fixed in this artifact, at {own}. Received: {name}={wish}. "
                    f"Export it anew with --{name.replace('_', '-')} {wish}"
                )
        return thresholds

    def _run(self, images, windows, score_threshold, nms_threshold, max_detections):
        outputs = self.runtime.run(
            images,
            windows,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        # What an artifact with fixed thresholds returns too much goes here.
        wanted = (outputs["scores"] >= np.float32(score_threshold)).sum(axis=1)
        return {**outputs, "count": np.minimum(np.minimum(outputs["count"], wanted), max_detections)}
