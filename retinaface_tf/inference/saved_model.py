"""Run an exported SavedModel in TensorFlow."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.artifact import parse
from retinaface_tf.inference.formats import newest_version

METADATA = "assets.extra/retinaface.json"


class SavedModel:
    """The signature `detect` of a SavedModel.

    Args:
        path: folder of a version, or of versions, of which the newest counts.

    Attributes:
        metadata: dict, see `retinaface_tf.export.metadata.describe`.
        signatures: mapping of names to functions of tensors; "serving_default" and "serve_bytes" among them.

    Raises:
        ValueError: if it is none of ours, or damaged.
    """

    def __init__(self, path: PathLike) -> None:
        folder = newest_version(path) or Path(path)
        file = folder / METADATA
        self.metadata = parse(file.read_bytes() if file.is_file() else None, folder)
        try:
            self._loaded = tf.saved_model.load(folder)  # held, since its functions hold it weakly
            self.signatures = self._loaded.signatures
            self._detect = self.signatures["detect"]
        except Exception as error:  # a damaged folder can raise nearly anything
            reason = first_line(error, 200)
            raise ValueError(f"{folder}: can't be opened ({type(error).__name__}: {reason})") from error

    def run(
        self, images: np.ndarray, windows: np.ndarray, score_threshold: float, nms_threshold: float, max_detections: int
    ) -> dict[str, np.ndarray]:
        """Faces of a batch; see `Detector`."""
        count = len(images)
        outputs = self._detect(
            images=tf.constant(images),
            windows=tf.constant(windows),
            score_threshold=tf.constant(np.full(count, score_threshold, np.float32)),
            nms_threshold=tf.constant(np.full(count, nms_threshold, np.float32)),
            max_detections=tf.constant(np.full(count, max_detections, np.int32)),
        )
        return {name: value.numpy() for name, value in outputs.items()}
