"""RetinaFace: the one model, from pixels to raw predictions and on to faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import tensorflow as tf
from keras import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf import presets
from retinaface_tf.common.types import ImageSource, PathLike, Resize
from retinaface_tf.dense.vertex_config import complete_dense
from retinaface_tf.dense.vertex_decoder import build_dense
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.boxes import area
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.inference.predictor import as_photos, detect
from retinaface_tf.network.build import build_network, stages_of
from retinaface_tf.network.fingerprint import telling_kernels
from retinaface_tf.network.fold import fold_weights
from retinaface_tf.presets.keras_file import load_keras_file

DEFAULT_ANCHORS = {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}

SIGNATURE = {
    "images": tf.TensorSpec([None, None, None, 3], tf.uint8),
    "windows": tf.TensorSpec([None, 4], tf.float32),
    "score_threshold": tf.TensorSpec([], tf.float32),
    "nms_threshold": tf.TensorSpec([], tf.float32),
    "max_detections": tf.TensorSpec([], tf.int32),
}


@keras.saving.register_keras_serializable("retinaface_tf")
class RetinaFace(keras.Model):
    """RetinaFace (arXiv 1905.00641) as a functional Keras model, with the whole way to faces and back.

    Called on images it returns raw predictions, in training and inference alike; `detect` returns faces.

    Args:
        backbone: name. "mobilenet_v1_025", "_050" or "_100", "resnet18", "resnet34", "resnet50", "resnet101" or
            "resnet152".
        anchors: dict level -> anchor sizes in pixels, levels neighbours from "P2" to "P6", fine to coarse; sizes free
            in number. `None` is the public checkpoints' {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}.
        num_filters: int, divisible by 4. Channels of the pyramid and the context modules. Up to 64 their ReLUs leak
            (slope 0.1), above they do not, which is the public checkpoints' rule.
        shared_context: bool. One context module for all levels instead of one each.
        deformable: "v1", "v2" or `None`. Deformable convolutions (see `DeformableConv2D`) for the 3x3 convolutions of
            the lateral connections and of the context modules.
        cascade: bool. First heads on plain context modules of their own predict faces and boxes from the anchors; all
            other predictions are then relative to those boxes instead of the anchors.
        dense: topology of a mesh whose vertices are predicted for every face: path, or dict (see `complete_dense`),
            whose "form" is "vertices" or "mesh". `None` for boxes and landmarks only.
        pixel_mean, pixel_std: three floats each, RGB: the network sees `(pixels - mean) / std`.
        variances: pair of floats. See `geometry.box_coder`.
        folded: bool. Batch normalisation multiplied into the convolutions and the heads of a level merged: for
            inference only, made by `fold`.
        dtype: dtype or policy of every layer, such as "mixed_bfloat16"; predictions are float32 all the same.

    Input: images `[N, H, W, 3]` of any dtype, RGB, 0 to 255, any size.
    Output: dict of float32 tensors over the A anchors of `anchor_generator(H, W)`: "face" logits (background, face)
    `[N, A, 2]`, "box" offsets `[N, A, 4]` and "landmark" offsets `[N, A, 5, 2]`; in a cascade also "first_face" and
    "first_box"; with `dense` also "vertex" `[N, A, embedding]`, which `vertex_decoder` turns into vertices.
    """

    def __init__(
        self,
        backbone: str = "mobilenet_v1_025",
        anchors: Mapping[str, Sequence[float]] | None = None,
        num_filters: int = 64,
        shared_context: bool = False,
        deformable: str | None = None,
        cascade: bool = False,
        dense: Any = None,
        pixel_mean: Sequence[float] = (123.0, 117.0, 104.0),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        variances: Sequence[float] = (0.1, 0.2),
        folded: bool = False,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if num_filters <= 0 or num_filters % 4:
            raise ValueError(f"`num_filters` must be a positive multiple of 4. Received: num_filters={num_filters}")
        generator = AnchorGenerator(DEFAULT_ANCHORS if anchors is None else anchors)
        dtype = keras.dtype_policies.get(dtype).name
        dense = None if dense is None else complete_dense(dense)
        stages = stages_of(cascade, dense["embedding"] if dense else 0)
        images = keras.Input((None, None, 3), name="images")
        outputs = build_network(
            images,
            stages,
            backbone=backbone,
            anchors=generator.sizes,
            num_filters=num_filters,
            shared_context=shared_context,
            deformable=deformable,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            folded=folded,
            dtype=dtype,
        )
        super().__init__(inputs=images, outputs=outputs, **kwargs)

        self.backbone = backbone
        self.anchor_generator = generator
        self.num_filters = num_filters
        self.shared_context = shared_context
        self.deformable = deformable
        self.cascade = cascade
        self.dense = dense
        self.topology, self.vertex_decoder = build_dense(dense)
        self.pixel_mean = tuple(pixel_mean)
        self.pixel_std = tuple(pixel_std)
        self.variances = (variances[0], variances[1])
        self.folded = folded
        self.layers_dtype = dtype
        self.stages = stages  # prefix of predictions -> what is predicted for an anchor
        self.objective: Any = None  # until `compile`
        self._loss_metrics = {}
        self._inference: Any = None
        self._inference_weights = None
        self._fingerprint: Any = None

    @classmethod
    def from_preset(cls, preset: PathLike, weights: bool = True, **overrides: Any) -> Self:
        """A ready-made model.

        Args:
            preset: name from `retinaface_tf.presets.names()`, path of a folder with a `preset.json`, or path of a
                `.keras` file that `save` wrote.
            weights: bool. `False` gives the preset's architecture with fresh weights, for training.
            overrides: arguments of `RetinaFace` that replace the preset's, such as `dtype="mixed_bfloat16"`.

        Raises:
            ValueError: for an unknown name, listing the known ones; for a preset without weights; for a file that is
                no model of this class.
            OSError: if the file can't be read, or the bundled weights are damaged.
        """
        if str(preset).endswith(".keras"):
            return load_keras_file(cls, preset, weights, overrides)
        card = presets.load(str(preset))
        if weights:
            presets.require_weights(card)
        model = cls(**{**card["architecture"], **overrides})
        if weights:
            presets.assign_weights(model, card)
        return model

    def detect(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        max_detections: int = 750,
        resize: Resize = None,
        batch_size: int = 8,
        close_ups: bool = True,
    ) -> Any:
        """Find the faces of a photo, or of each photo of a list.

        Args:
            images: path, bytes, binary file object, PIL image, array `[H, W]` or `[H, W, C]` of uint8 or uint16
                (RGB), or a list or array `[N, H, W, C]` of any of these.
            score_threshold: float in [0, 1]. Lowest score kept.
            nms_threshold: float in [0, 1]. Of two boxes whose intersection over union is higher, one is kept.
            max_detections: int. Most faces of a photo.
            resize: `None` for the photo's own size; "auto" to enlarge a photo whose long side is under 640 pixels to
                that, at which more small faces are found; or (short, long): the short side is brought to `short`
                pixels, unless the long one would then be over `long`. Results are in pixels of the photo all the same.
            batch_size: int. Photos of a list that are run together, where their sizes allow.
            close_ups: bool. Look once more, from further away, where a face could be larger than the network sees or
                seems cut by the frame (see `close_up`). `False` is the plain network, as published evaluations use it.

        Returns:
            `Detections`, or a list of them in order, each the same as for the photo alone.

        Raises:
            ImageError: (a ValueError) naming what can't be read as a photo.
            ValueError: naming the option that is out of range.
        """
        photos, single = as_photos(images)
        results = detect(
            self.inference(),
            photos,
            fill=[round(mean) for mean in self.pixel_mean],
            largest_anchor=max(map(max, self.anchor_generator.sizes.values())),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            resize=resize,
            batch_size=batch_size,
            close_ups=close_ups,
            topology=self.topology,
        )
        return results[0] if single else results

    def compile(self, optimizer, loss, jit_compile=False, **kwargs):
        """Prepare for `fit` on batches of (images `[N, H, W, 3]`, faces).

        Faces are a dict as `AnchorTarget` takes it; its "image_weight" `[N]`, if there is one, leaves out images whose
        weight is 0. `fit` logs "loss" and each of the losses that it is the sum of, "faces" (labelled faces seen so far
        in the epoch) and "skipped" (images left out).

        Args:
            optimizer: Keras optimizer; a model of "mixed_float16" wraps it in a `LossScaleOptimizer`.
            loss: `training.objective.Objective`: targets and losses.
            jit_compile: bool. Off, since XLA is several times slower than TensorFlow here on a CPU.
            kwargs: as in `keras.Model.compile`.

        Raises:
            ValueError: the objective does not fit this model.
        """
        if not hasattr(loss, "require_fit"):
            raise ValueError(
                f"`loss` must be an `Objective` (retinaface_tf.training.objective). Received: loss={loss!r}"
            )
        loss.require_fit(cascade=self.cascade, dense=self.dense is not None, variances=self.variances)
        if self.layers_dtype == "mixed_float16":
            # Keras would do so itself, but looks at the policy of the model; ours is that of the layers.
            optimizer = keras.optimizers.get(optimizer)
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.objective = loss
        means = {name: keras.metrics.Mean(name=name) for name in self.loss_names}
        self._loss_metrics = {**means, "faces": keras.metrics.Sum("faces"), "skipped": keras.metrics.Sum("skipped")}

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The losses that `fit` logs, beside "loss", their sum: tuple of str."""
        return self.objective.names(self.stages)

    def get_compile_config(self):
        """Nothing: a saved model is for detection, training goes on from its checkpoints."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of all losses of a batch, a float32 scalar. See `compile`.

        On a replica it is the part that adds up over all replicas, as Keras' optimizers and its logged loss expect.
        """
        if self.objective is None:
            raise ValueError("Call `compile` with an `Objective` as `loss` first: see its docstring.")
        height, width = ops.shape(x)[1:3]
        total, losses = self.objective(
            images=x,
            faces=y,
            predictions=y_pred,
            anchors=self.anchor_generator(height, width),
            level_counts=self.anchor_generator.level_counts(height, width),
            stages=self.stages,
            decoder=self.vertex_decoder,
            topology=self.topology,
        )
        for name, value in losses.items():
            self._loss_metrics[name].update_state(value)
        self._loss_metrics["faces"].update_state(ops.cast(area(y["boxes"]) > 0, "float32"))
        if "image_weight" in y:
            self._loss_metrics["skipped"].update_state(ops.cast(y["image_weight"] == 0, "float32"))
        return total

    def inference(self) -> Any:
        """The traced function behind `detect` (see `_build_inference`), built anew whenever the weights changed."""
        if self._fingerprint is None:
            self._fingerprint = _trace_sums(telling_kernels(self))
        weights = self._fingerprint().numpy().tobytes()  # sums that change when the weights do
        if self._inference is None or weights != self._inference_weights:
            self._inference = _build_inference(self)
            self._inference_weights = weights
        return self._inference

    def fold(self) -> Self:
        """This model for inference: a new `RetinaFace` with `folded=True` that gives the same predictions.

        Batch normalisation is multiplied into the convolutions and the heads of a level become one convolution:
        0.7 times the time on a CPU.

        Raises:
            ValueError: if this model is folded already.
        """
        if self.folded:
            raise ValueError("This model is folded already: `fold` takes a model with batch normalisation.")
        folded = type(self)(**{**self.get_config(), "folded": True, "name": f"{self.name}_folded"})
        fold_weights(self, folded)
        return folded

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": self.backbone,
            "anchors": {level: list(sizes) for level, sizes in self.anchor_generator.sizes.items()},
            "num_filters": self.num_filters,
            "shared_context": self.shared_context,
            "deformable": self.deformable,
            "cascade": self.cascade,
            "dense": self.dense,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "variances": list(self.variances),
            "folded": self.folded,
            "dtype": self.layers_dtype,
        }


def _build_inference(model: RetinaFace) -> Callable[..., dict[str, tf.Tensor]]:
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


def _trace_sums(variables: Sequence[keras.Variable]) -> Callable[[], tf.Tensor]:
    """A traced function without arguments that returns the sum of each Keras variable, float32 `[V]`."""

    @tf.function(autograph=False)
    def sums():
        return tf.stack([tf.reduce_sum(tf.cast(variable.value, tf.float32)) for variable in variables])

    return sums
