"""Validation: AP on annotated photos during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from PIL import Image

from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.common.types import PathLike
from retinaface_tf.data.example import read_shards
from retinaface_tf.evaluation.protocols import detect_with
from retinaface_tf.evaluation.runner import get_protocol, read_image
from retinaface_tf.evaluation.widerface import match, mean_ap, subset_ap
from retinaface_tf.image.loading import ImageError, load_image

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.evaluation.protocols import Protocol

SCORE_THRESHOLD = 0.02  # low, because AP needs the whole curve


class Validation:
    """AP of a detector on annotated photos: `validation(model)` returns a dict `val_ap_<subset>` -> float.

    Args:
        photos: Dict name -> image path, or the bytes of an image file.
        annotations: Annotations that have these names. Their other photos are left out, not counted as missed.
        protocol: Name in `PROTOCOLS`, or a `Protocol`.
        check: Whether photos without a face of the last subset are refused.

    Attributes:
        monitor: Name of the score of the last subset, the hardest: it decides which model is the best.
        subsets: Dict name -> bool `[F]`, the faces that count in a score.
        detections: Dict name -> detections of the last call.
        matching: The `Matching` of the last call.
        missing: Number of annotated photos that are not in the folder of photos.

    Raises:
        ValueError: A photo can't be read, or the photos have no face of the last subset.
    """

    def __init__(
        self,
        photos: Mapping[str, Any],
        annotations: Annotations,
        protocol: str | Protocol = "original",
        check: bool = True,
    ) -> None:
        self.photos = dict(photos)
        self.annotations = annotations.only(self.photos)
        self.protocol = get_protocol(protocol)
        self.subsets = self.annotations.subsets or {"all": self.annotations.subset("all")}
        hardest = list(self.subsets)[-1]
        if check and not self.subsets[hardest].any():
            raise ValueError(
                f"no face of the subset {hardest!r} in the {len(self.photos)} validation photos: so AP is undefined"
            )
        self.monitor = f"val_ap_{hardest}"
        self.detections: dict[str, Any] = {}
        self.matching: Any = None
        self.missing = 0

    @classmethod
    def open(cls, labels: PathLike, images: PathLike, protocol: str | Protocol = "original") -> Validation:
        """Validation on the photos of a folder, with labels in any format of `annotations.read.read_annotations`."""
        annotations = read_annotations(labels, images)
        try:
            validation = cls(find_photos(images, annotations), annotations, protocol)
        except ValueError as error:
            raise ValueError(f"{labels}: {error}") from None
        validation.missing = len(annotations) - len(validation.photos)
        validation.require_photos()
        return validation

    @classmethod
    def of_shards(cls, folders: Sequence[PathLike], protocol: str | Protocol = "original") -> Validation:
        """Validation on the photos of shards that `retinaface-tf convert` wrote, held in memory as files."""
        annotations, photos = read_shards(folders)
        try:
            return cls(photos, annotations, protocol)
        except ValueError as error:
            raise ValueError(f"{', '.join(map(str, folders))}: {error}") from None

    def require_photos(self) -> None:
        """Raise ValueError if the header of a file is not that of a photo."""
        for path in self.photos.values():
            try:
                with Image.open(path):
                    pass
            except OSError as error:
                reason = error.strerror or "unknown format"
                raise ValueError(f"{path}: not a photo that can be read ({reason})") from None

    def read(self, name: str) -> np.ndarray:
        """A photo as uint8 RGB `[H, W, 3]`, in the file's own orientation."""
        photo = self.photos[name]
        if not isinstance(photo, bytes):
            return read_image(photo)
        try:
            return load_image(photo, upright=False)
        except ImageError as error:
            raise ValueError(f"{name}: a validation photo that can't be decoded ({error})") from None

    def __call__(self, model: RetinaFace) -> dict[str, float]:
        """Detect in all photos and score: dict `val_ap_<subset>` -> float."""

        def detect(image):
            # The network alone, as the protocols have it.
            return model.detect(image, score_threshold=SCORE_THRESHOLD, resize=None, close_ups=False)

        return self.score(detect)

    def score(self, detect: Callable[[np.ndarray], Any], mean_over_iou: bool = False) -> dict[str, float]:
        """The same for a callable from a uint8 RGB image to an object with `boxes` and `scores`.

        `mean_over_iou` adds `val_map_<subset>`, the mean over IoU 0.5 : 0.05 : 0.95.
        """
        self.detections = {name: detect_with(self.protocol, detect, self.read(name)) for name in self.photos}
        self.matching = match(self.annotations, self.detections)
        subsets = self.subsets
        scores = {f"val_ap_{name}": subset_ap(self.matching, keep) for name, keep in subsets.items()}
        if mean_over_iou:
            scores |= {f"val_map_{name}": mean_ap(self.matching, keep) for name, keep in subsets.items()}
        return scores


class FaceAP(keras.callbacks.Callback):
    """Keras callback that adds AP to the logs of every Nth epoch, for your own training loop.

    The logs get `val_ap_<subset>` (and `val_map_<subset>` with `mean_over_iou`), so that a `ModelCheckpoint` that comes
    after this one in the list can keep the best; in epochs without a score they are absent.

    Args:
        photos: Dict name -> image path.
        ground_truth: `Annotations` that has these names. Its other photos are left out, not counted as missed.
        every: Integer, epochs between two scores; the first is after epoch `every`.
        protocol: Name in `PROTOCOLS`, or a `Protocol`.
        detect: Callable from a uint8 RGB image to an object with `boxes` and `scores`; None for the `detect` method of
            the model in training.
        score_threshold: Float, for the model's own `detect`: low, because AP needs the whole curve.
        mean_over_iou: Whether to add the mean over IoU 0.5 : 0.05 : 0.95.
    """

    def __init__(
        self,
        photos: Mapping[str, PathLike],
        ground_truth: Annotations,
        *,
        every: int = 1,
        protocol: str | Protocol = "original",
        detect: Callable[[np.ndarray], Any] | None = None,
        score_threshold: float = SCORE_THRESHOLD,
        mean_over_iou: bool = False,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        self.validation = Validation(photos, ground_truth, protocol)
        self.every = every
        self.detect = detect
        self.score_threshold = score_threshold
        self.mean_over_iou = mean_over_iou
        self.history = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every:
            return
        scores = self.score()
        self.history[epoch] = scores
        if logs is not None:
            logs.update(scores)

    def score(self) -> dict[str, float]:
        """Detect in all photos now: dict `val_ap_<subset>` -> float."""
        return self.validation.score(self.detect or self._model_detect, self.mean_over_iou)

    def _model_detect(self, image):
        return self.model.detect(image, score_threshold=self.score_threshold, resize=None, close_ups=False)
