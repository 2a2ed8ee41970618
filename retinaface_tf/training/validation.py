"""AP on annotated photos during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.protocols import detect_with
from retinaface_tf.evaluation.runner import get_protocol, read_image
from retinaface_tf.evaluation.wider_report import mean_ap
from retinaface_tf.evaluation.widerface import match, subset_ap

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.evaluation.protocols import Protocol


class FaceAP(keras.callbacks.Callback):
    """AP on labelled photos after every N epochs, added to the epoch's logs.

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
        score_threshold: float = 0.02,
        mean_over_iou: bool = False,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        self.photos = dict(photos)
        self.ground_truth = ground_truth.only(self.photos)
        self.every = every
        self.protocol = get_protocol(protocol)
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
        detect = self.detect or self._model_detect
        found = {name: detect_with(self.protocol, detect, read_image(path)) for name, path in self.photos.items()}
        matching = match(self.ground_truth, found)
        subsets = self.ground_truth.subsets or {"all": self.ground_truth.subset("all")}
        scores = {f"val_ap_{name}": subset_ap(matching, keep) for name, keep in subsets.items()}
        if self.mean_over_iou:
            scores |= {f"val_map_{name}": mean_ap(matching, keep) for name, keep in subsets.items()}
        return scores

    def _model_detect(self, image):
        # One look a photo, as the protocols and the command have it.
        return self.model.detect(image, score_threshold=self.score_threshold, close_ups=False)
