"""Targets of anchors: the values to predict, and weights that say which values count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from retinaface_tf.geometry.box_coder import encode_boxes, encode_landmarks
from retinaface_tf.geometry.boxes import area
from retinaface_tf.geometry.matcher import IGNORED, NEGATIVE, in_regions, match_by_atss, match_by_iou

MATCHINGS = ("iou", "atss")
VISIBLE, OCCLUDED = 1, 0  # states of a landmark in `visible`; anything below is not labeled


class Targets(NamedTuple):
    """Targets of A anchors of N images. A value with a weight of 0 is not learned from.

    Attributes:
        faces: float32 `[N, A]`: 1 where the anchor is matched to a face.
        face_weights: float32 `[N, A]`: 0 where IGNORED.
        boxes: float32 `[N, A, 4]`, offsets as `encode_boxes` gives them; 0 without a face.
        box_weights: float32 `[N, A]`.
        landmarks: float32 `[N, A, 5, 2]`, offsets; 0 where not labeled.
        landmark_weights: float32 `[N, A, 5]`.
        match: int32 `[N, A]`: index of the face that the anchor is matched to, or NEGATIVE or IGNORED (see `matcher`).
        scores: float32 `[N, A]`: how sure the label of the anchor's face is; 0 without a face.
    """

    faces: tf.Tensor
    face_weights: tf.Tensor
    boxes: tf.Tensor
    box_weights: tf.Tensor
    landmarks: tf.Tensor
    landmark_weights: tf.Tensor
    match: tf.Tensor | None = None
    scores: tf.Tensor | None = None


class LossContext(NamedTuple):
    """What a dense loss sees of a batch.

    Attributes:
        images: `[N, H, W, 3]`, 0 to 255.
        faces: dict as `AnchorTarget` takes it, perhaps with "image_weight" `[N]` and the labels of a dense branch.
        targets: `Targets`, with a match.
        predictions: dict as `RetinaFace` returns it.
        anchors: float32 `[A, 4]` or `[N, A, 4]`, `xyxy` pixels.
        decoder: layer that turns the predictions "vertex" into vertices.
        topology: `Topology` of the mesh.
    """

    images: tf.Tensor
    faces: dict[str, tf.Tensor]
    targets: Targets
    predictions: dict[str, tf.Tensor]
    anchors: tf.Tensor
    decoder: Any
    topology: Any


@keras.saving.register_keras_serializable("retinaface_tf")
class AnchorTarget(keras.layers.Layer):
    """Match anchors to faces and encode what each should predict. No weights; runs in the graph, on the device.

    Args:
        matching: "iou" (`match_by_iou`) or "atss" (`match_by_atss`).
        positive_iou, negative_iou: floats, for "iou" only.
        forced_iou: float or `None`.
        top_k: int, for "atss" only.
        region_overlap: float in (0, 1]. An anchor without a face is IGNORED, neither positive nor negative, if an
            ignore region covers so much of it.
        region_side: float, pixels. A smaller region is widened to it about its center: the smallest anchor
            would not be covered otherwise.
        ignore_below: float, pixels. Faces of a smaller side, sqrt(width * height), are ignore regions.
        occluded_weight: float. Weight of landmarks that are labeled but hidden; visible ones have 1. The published
            recipes make no difference.
        variances: pair of floats. See `box_coder`.
    """

    def __init__(
        self,
        matching: str = "iou",
        positive_iou: float = 0.35,
        negative_iou: float = 0.35,
        forced_iou: float | None = 0.2,
        top_k: int = 9,
        occluded_weight: float = 1.0,
        region_overlap: float = 0.3,
        region_side: float = 16.0,
        ignore_below: float = 0.0,
        variances: Sequence[float] = (0.1, 0.2),
        **kwargs: Any,
    ) -> None:
        # Pixels stay float32 under every policy: bfloat16 would move a face at x = 1,000 by up to 4 pixels.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        if matching not in MATCHINGS:
            raise ValueError(f"`matching` must be one of {list(MATCHINGS)}. Received: matching={matching!r}")
        if not 0 < negative_iou <= positive_iou <= 1:
            raise ValueError(
                "`negative_iou` and `positive_iou` must be in (0, 1], the first not above the second. Received: "
                f"negative_iou={negative_iou}, positive_iou={positive_iou}"
            )
        if forced_iou is not None and not 0 < forced_iou <= 1:
            raise ValueError(f"`forced_iou` must be None or in (0, 1]. Received: forced_iou={forced_iou}")
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1. Received: top_k={top_k}")
        if occluded_weight < 0:
            raise ValueError(f"`occluded_weight` must be at least 0. Received: occluded_weight={occluded_weight}")
        if not 0 < region_overlap <= 1:
            raise ValueError(f"`region_overlap` must be in (0, 1]. Received: region_overlap={region_overlap}")
        if region_side < 0 or ignore_below < 0:
            given = f"region_side={region_side}, ignore_below={ignore_below}"
            raise ValueError(f"`region_side` and `ignore_below` must be at least 0. Received: {given}")
        self.matching = matching
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.forced_iou = forced_iou
        self.top_k = top_k
        self.occluded_weight = occluded_weight
        self.region_overlap = region_overlap
        self.region_side = region_side
        self.ignore_below = ignore_below
        self.variances = tuple(variances)
        self.built = True  # nothing to build; as part of a model it would make Keras look for a batch to build it with

    def call(
        self, faces: dict[str, tf.Tensor], anchors: tf.Tensor, level_counts: Sequence[Any] | None = None
    ) -> Targets:
        """Targets of a batch.

        Args:
            faces: dict: "boxes" float32 `[N, F, 4]`, `xyxy` pixels, padding without area; "landmarks" float32
                `[N, F, 5, 2]` pixels; "visible" int `[N, F, 5]`: 1 visible, 0 occluded, -1 not labeled. F may be 0.
                Maybe "ignored" int `[N, F]`, 1 for an ignore region, which is no face; and "scores" float32 `[N, F]`.
            anchors: float32 `[A, 4]`, or `[N, A, 4]` where each image has its own, `xyxy` pixels.
            level_counts: list of int, anchors of each level; needed by "atss", see `AnchorGenerator.level_counts`.
        """
        # A face of zeros behind all others is what anchors without a face look up: never an index out of range.
        boxes = tf.pad(tf.cast(faces["boxes"], tf.float32), [[0, 0], [0, 1], [0, 0]])
        landmarks = tf.pad(tf.cast(faces["landmarks"], tf.float32), [[0, 0], [0, 1], [0, 0], [0, 0]])
        visible = tf.pad(tf.cast(faces["visible"], tf.int32), [[0, 0], [0, 1], [0, 0]], constant_values=-1)
        own, regions = self._split(boxes[:, :-1], faces.get("ignored"))
        match = self._match(anchors, own, regions, level_counts)
        positive = match >= 0
        index = tf.where(positive, match, tf.shape(boxes)[1] - 1)
        states = tf.gather(visible, index, batch_dims=1)
        scores = tf.ones_like(match, tf.float32)
        if "scores" in faces:
            padded = tf.pad(tf.cast(faces["scores"], tf.float32), [[0, 0], [0, 1]])
            scores = tf.gather(padded, index, batch_dims=1)
        landmark_weights = tf.where(states == VISIBLE, 1.0, tf.where(states == OCCLUDED, self.occluded_weight, 0.0))
        box_offsets = encode_boxes(tf.gather(boxes, index, batch_dims=1), anchors, self.variances)
        landmark_offsets = encode_landmarks(tf.gather(landmarks, index, batch_dims=1), anchors, self.variances)
        targets = Targets(
            faces=tf.cast(positive, tf.float32),
            face_weights=tf.cast(match != IGNORED, tf.float32),
            boxes=tf.where(positive[..., None], box_offsets, 0.0),
            box_weights=tf.cast(positive, tf.float32),
            landmarks=tf.where(states[..., None] >= OCCLUDED, landmark_offsets, 0.0),
            landmark_weights=landmark_weights,
            match=match,
            scores=tf.where(positive, scores, 0.0),
        )
        return Targets(*map(tf.stop_gradient, targets))

    def _split(self, boxes, ignored):
        """Boxes of the faces to match, and ignore regions: twice `[N, F, 4]`, zeros where the other has the box."""
        region = tf.sqrt(area(boxes)) < self.ignore_below
        if ignored is not None:
            region |= ignored > 0
        elif not self.ignore_below:
            return boxes, None
        region &= area(boxes) > 0
        centers, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
        half = tf.maximum(half, self.region_side / 2)
        regions = tf.concat([centers - half, centers + half], axis=-1)
        return tf.where(region[..., None], 0.0, boxes), tf.where(region[..., None], regions, 0.0)

    def _match(self, anchors, boxes, regions, level_counts):
        if self.matching == "iou":
            match = match_by_iou(anchors, boxes, self.positive_iou, self.negative_iou, self.forced_iou)
        elif level_counts is None:
            raise ValueError('matching="atss" needs `level_counts`: AnchorGenerator.level_counts(height, width)')
        else:
            match = match_by_atss(anchors, boxes, level_counts, self.top_k, self.forced_iou)
        if regions is None:
            return match
        return tf.cond(
            tf.reduce_any(regions > 0),
            lambda: tf.where((match == NEGATIVE) & in_regions(anchors, regions, self.region_overlap), IGNORED, match),
            lambda: match,
        )

    def compute_output_spec(self, faces: Any, anchors: Any, level_counts: Sequence[Any] | None = None) -> Targets:
        batch, num_anchors = faces["boxes"].shape[0], anchors.shape[-2]
        shapes = {"boxes": (4,), "landmarks": (5, 2), "landmark_weights": (5,)}
        dtypes = {"match": "int32"}
        specs = (
            keras.KerasTensor((batch, num_anchors, *shapes.get(name, ())), dtypes.get(name, "float32"))
            for name in Targets._fields
        )
        return Targets(*specs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "matching": self.matching,
            "positive_iou": self.positive_iou,
            "negative_iou": self.negative_iou,
            "forced_iou": self.forced_iou,
            "top_k": self.top_k,
            "occluded_weight": self.occluded_weight,
            "region_overlap": self.region_overlap,
            "region_side": self.region_side,
            "ignore_below": self.ignore_below,
            "variances": list(self.variances),
        }
