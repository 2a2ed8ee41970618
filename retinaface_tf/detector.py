"""`RetinaFace`, the Keras model: from pixels to predictions, and to faces."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

from retinaface_tf.common import tensorflow_backend  # noqa: F401 (says so if Keras has another one)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from retinaface_tf import presets
from retinaface_tf.common.files import require_file
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import ImageSource, PathLike, Resize
from retinaface_tf.dense.branch import build_dense, complete_dense, dense_heads
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.boxes import area
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.inference.predictor import as_photos, detect
from retinaface_tf.network.backbones import get_backbone
from retinaface_tf.network.build import build_network, stages_of
from retinaface_tf.network.conv_block import BATCH_NORM_EPSILON, ConvBlock, folded_convolutions, zero_kernels
from retinaface_tf.network.heads import merged_weights, predict_merged
from retinaface_tf.network.weight_watch import WeightWatch
from retinaface_tf.presets.torch_checkpoint import read_torch_checkpoint, to_keras

DEFAULT_ANCHORS = {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}
MAX_FILTERS = 4096

SIGNATURE = {
    "images": tf.TensorSpec([None, None, None, 3], tf.uint8),
    "windows": tf.TensorSpec([None, 4], tf.float32),
    "score_threshold": tf.TensorSpec([], tf.float32),
    "nms_threshold": tf.TensorSpec([], tf.float32),
    "max_detections": tf.TensorSpec([], tf.int32),
}


class _Presets:
    """`RetinaFace.presets`: the cards of the bundled presets, read when they are asked for."""

    def __get__(self, instance, owner=None):
        return {name: presets.load(name) for name in presets.names()}


@keras.saving.register_keras_serializable("retinaface_tf")
class RetinaFace(keras.Model):
    """RetinaFace (arXiv 1905.00641) as a functional Keras model.

    A call with images returns raw predictions, the same in training and inference. `detect` returns faces.

    Args:
        backbone: name of an entry of `network.backbones.BACKBONES`: "mobilenet_v1_025", "_050" or "_100", "resnet18",
            "resnet34", "resnet50", "resnet101" or "resnet152".
        anchors: dict of level to a list of anchor sizes in pixels. Levels must be consecutive, from "P2" (finest) to
            "P6" (coarsest). `None` means {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}, as in the public
            checkpoints.
        num_filters: int, divisible by 4. Channels of the pyramid and the context modules. Up to 64 channels, their
            ReLUs are leaky (slope 0.1), as in the public checkpoints.
        shared_context: bool. Use one context module for all levels, instead of one per level.
        deformable: "v1", "v2" or `None`. Deformable convolutions (see `DeformableConv2D`) for the 3x3 convolutions of
            the lateral connections and of the context modules.
        cascade: bool. Add a first stage with its own context modules, which predicts faces and boxes from the anchors.
            All other predictions are then relative to these boxes instead of the anchors.
        dense: 3D mesh to predict for every face: path of an OBJ file, or dict of options (see `complete_dense`). `None`
            means boxes and landmarks only.
        pixel_mean, pixel_std: three floats each, RGB. The network gets `(pixels - mean) / std`.
        variances: pair of floats. See `geometry.box_coder`.
        folded: bool. Batch normalization is folded into the convolutions and the heads of a level are merged. For
            inference only; see `fold`.
        dtype: dtype or policy of every layer, such as "mixed_bfloat16". Predictions are always float32.

    Input: images `[N, H, W, 3]` of any dtype, RGB, 0 to 255, any size.
    Output: dict of float32 tensors over the A anchors of `anchor_generator(H, W)`: "face" logits (background, face)
    `[N, A, 2]`, "box" offsets `[N, A, 4]` and "landmark" offsets `[N, A, 5, 2]`. A cascade adds "first_face" and
    "first_box". `dense` adds "vertex" `[N, A, embedding]`, which `vertex_decoder` converts to vertices.
    """

    presets: ClassVar[Any] = _Presets()  # dict name -> card: description, architecture, where the weights come from

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
        if not isinstance(num_filters, int) or not 4 <= num_filters <= MAX_FILTERS or num_filters % 4:
            raise ValueError(
                f"`num_filters` must be a positive multiple of 4, at most {MAX_FILTERS}. "
                f"Received: num_filters={num_filters!r}"
            )
        pixel_mean = _numbers("pixel_mean", pixel_mean, 3, 0, 255)
        pixel_std = _numbers("pixel_std", pixel_std, 3, 1e-6, 1e6)
        variances = _numbers("variances", variances, 2, 1e-6, 1e6)
        generator = AnchorGenerator(DEFAULT_ANCHORS if anchors is None else anchors)
        policy = keras.dtype_policies.get(dtype)
        if getattr(policy, "quantization_mode", None):
            raise ValueError(
                f"`dtype` {policy.name!r} quantizes layers, and Keras can't quantize convolutions. "
                'Pass dtype="float32", or call keras.config.set_dtype_policy("float32")'
            )
        dtype = policy.name
        dense = None if dense is None else complete_dense(dense)
        stages = stages_of(cascade, dense_heads(dense))
        _require_own_process()
        if not tf.compat.v1.executing_eagerly_outside_functions():
            raise RuntimeError(
                "RetinaFace needs TensorFlow 2: remove tf.compat.v1.disable_eager_execution or disable_v2_behavior. "
                'retinaface_tf.load("mobilenet025_wider") runs without TensorFlow'
            )
        images = keras.Input((None, None, 3), name="images", dtype="float32")
        outputs, contexts = build_network(
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
        self.vertex_decoder = build_dense(dense)  # after the network: the order in which a seed is used
        self.topology = None if self.vertex_decoder is None else self.vertex_decoder.mesh
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.variances = (variances[0], variances[1])
        self.folded = folded
        self.layers_dtype = dtype
        self.stages = stages  # prefix of predictions -> heads of that stage
        self.objective: Any = None  # until `compile`
        self._loss_metrics = {}
        self._features = keras.Function(images, contexts)  # up to the heads
        self._weights = WeightWatch(self.variables)
        self._inference: Any = None
        self._inference_version: Any = None
        self._inference_lock = threading.RLock()

    @classmethod
    def from_preset(cls, preset: PathLike, load_weights: bool = True, **overrides: Any) -> Self:
        """Build a model from a preset or a file.

        Args:
            preset: name from `RetinaFace.presets`, path of a folder that `save_to_preset` wrote, or path of a `.keras`
                file that `save` wrote.
            load_weights: bool. `False` builds the architecture with random weights, for training.
            overrides: arguments of `RetinaFace` that replace those of the preset, such as `dtype="mixed_bfloat16"`.

        Raises:
            ValueError: if the name is unknown, the preset has no weights, or the file is not a `RetinaFace`.
            OSError: if the file can't be read, or the weights do not match the checksum of the preset.
        """
        load_weights = overrides.pop("weights", load_weights)  # the name of the argument up to version 0.1
        if str(preset).endswith(".keras"):
            return cls._from_keras_file(Path(preset), load_weights, overrides)
        card = presets.load(str(preset))
        if not load_weights:
            return cls(**{**card["architecture"], **overrides})
        content = presets.preset_weights(card)
        with zero_kernels():
            model = cls(**{**card["architecture"], **overrides})
        presets.read_weights(model.variables, content, f"The weights of {card['name']!r}")
        return model

    @classmethod
    def _from_keras_file(cls, path, load_weights, overrides):
        require_file(path)
        try:
            model = keras.saving.load_model(path)
        except Exception as error:  # a damaged archive can raise nearly anything
            raise ValueError(f"{path}: not a model that Keras can open ({first_line(error)})") from error
        if not isinstance(model, cls):
            raise ValueError(
                f"`{path}` contains a {type(model).__name__}. Expected a {cls.__name__}, saved with model.save"
            )
        if load_weights and (bad := [v.path for v in model.variables if not np.isfinite(v.numpy()).all()]):
            raise ValueError(f"{path}: its weights are not finite, such as {bad[0]}")
        if load_weights and not overrides:
            return model
        other = cls(**{**model.get_config(), **overrides})
        if load_weights:
            other.set_weights(model.get_weights())
        return other

    def save_to_preset(self, folder: PathLike, description: str = "") -> None:
        """Save the model as a preset folder for `from_preset` and the commands.

        Args:
            folder: path; created if it is missing. It gets `preset.json` and `weights.npz`.
            description: str for `preset.json`.
        """
        config = self.get_config()
        architecture = {name: config[name] for name in config if name not in ("name", "trainable")}
        presets.save(folder, architecture, self.variables, description)

    def detect(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        max_detections: int = 750,
        resize: Resize = "auto",
        batch_size: int = 8,
        close_ups: bool = True,
        max_pixels: int | None = None,
    ) -> Any:
        """Find the faces of a photo, or of each photo of a list.

        Args:
            images: path, bytes, binary file object, PIL image, or RGB array `[H, W]` or `[H, W, C]` of uint8 or
                uint16; or a list of these, or an array `[N, H, W, C]`.
            score_threshold: float in [0, 1]. Lowest score kept.
            nms_threshold: float in [0, 1]. IoU above which the lower-scoring of two boxes is suppressed.
            max_detections: int. Maximum number of faces per photo.
            resize: "auto", `None`, or a pair (short, long). "auto" enlarges photos with a long side below 640 pixels to
                640, to find more small faces. `None` keeps the size of the photo. (short, long) resizes the short side
                to `short` pixels, but the long side to at most `long`. Results are always in pixels of the photo.
            batch_size: int. Maximum number of photos of equal size that are run together.
            close_ups: bool. Run the network again where it may find more: on a smaller copy of the photo if a face
                could be larger than the largest anchor, or seems to be cut by the frame (see `close_up`), and on
                enlarged parts around small faces with uncertain scores, unless the long side of the photo is above
                1,462 pixels after `resize` (see `zoom`). Published evaluations use `False`.
            max_pixels: int. Files and bytes with more pixels are refused before they are decoded; `None` means 50
                million. Photos with more than 12.6 million pixels are processed in tiles.

        Returns:
            `Detections`, or a list of `Detections` in the same order. The result for a photo does not depend on the
            other photos of the list.

        Raises:
            ImageError: (a ValueError) if a photo can't be read.
            ValueError: if an option is out of range.
            RuntimeError: inside a `tf.function`, or in a process that was forked after TensorFlow had started.
        """
        if tf.inside_function():
            raise RuntimeError(
                "`detect` takes photos, not symbolic tensors: call it outside tf.function and tf.data. In a graph call "
                "the model itself, or load the SavedModel that `model.export(path)` writes"
            )
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
            max_pixels=max_pixels,
            topology=self.topology,
        )
        return results[0] if single else results

    def compile(self, optimizer, loss, jit_compile=False, **kwargs):
        """Prepare for `fit` on batches of (images `[N, H, W, 3]`, faces).

        Faces are a dict as for `AnchorTarget`. Images whose "image_weight" `[N]` (optional) is 0 are left out. `fit`
        logs "loss", each part of it, "faces" (labeled faces so far in this epoch) and "skipped" (images left out).

        Args:
            optimizer: Keras optimizer. For "mixed_float16" it is wrapped in a `LossScaleOptimizer`.
            loss: `training.objective.Objective`, which holds targets and losses.
            jit_compile: bool. Off by default: on CPUs, XLA is several times slower than TensorFlow here.
            kwargs: as in `keras.Model.compile`.

        Raises:
            ValueError: if the objective does not fit this model.
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
        means = {name: keras.metrics.Mean(name=name, dtype="float32") for name in self.loss_names}
        sums = {name: keras.metrics.Sum(name, dtype="float32") for name in ("faces", "skipped")}
        self._loss_metrics = {**means, **sums}

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses that `fit` logs, without their sum "loss": tuple of str."""
        return self.objective.names(self.stages)

    def get_compile_config(self):
        """Nothing: saved models are for detection. Training resumes from checkpoints."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of all losses of a batch, a float32 scalar. See `compile`.

        On several replicas, the values of all replicas add up to the loss, as Keras expects.
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
        labeled = area(y["boxes"]) > 0
        labeled = labeled & (y["ignored"] == 0) if "ignored" in y else labeled
        self._loss_metrics["faces"].update_state(ops.cast(labeled, "float32"))
        if "image_weight" in y:
            self._loss_metrics["skipped"].update_state(ops.cast(y["image_weight"] == 0, "float32"))
        return total

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _require_own_process()
        return super().__call__(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        _require_own_process()
        return super().fit(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        _require_own_process()
        return super().predict(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        _require_own_process()
        return super().evaluate(*args, **kwargs)

    def make_train_function(self, force=False):
        """As in Keras; a call of the function counts as a change of the weights."""
        super().make_train_function(force)
        function: Any = getattr(self, "train_function", None)
        if function is None or hasattr(function, "counted"):
            return

        def train(iterator):
            with self._weights.counted():
                return function(iterator)

        train.counted = True  # type: ignore[attr-defined]
        self.train_function = train

    def inference(self) -> Callable[..., dict[str, tf.Tensor]]:
        """The function behind `detect`, traced on the first call and after every change of the weights.

        Batch normalization is folded into the convolutions. Weights are constants, which the CPU kernels reorder once.

        Returns:
            A function of the tensors in `SIGNATURE` that returns the tensors of `DetectionDecoder` as a dict. It uses
            the current weights of the model, also if they change later.
        """
        _require_own_process()
        with self._inference_lock:
            version = self._weights.version()
            if self._inference is None or version != self._inference_version:
                self._inference = self._trace_inference()
                self._inference_version = version
            return self._inference

    def _trace_inference(self):
        decoder = DetectionDecoder(self.variances)

        @tf.function(input_signature=list(SIGNATURE.values()), autograph=False)
        def detect(images, windows, score_threshold, nms_threshold, max_detections):
            with self.constant_weights() as predict:
                return decoder(
                    predict(images),
                    self.anchor_generator(tf.shape(images)[1], tf.shape(images)[2]),
                    windows,
                    score_threshold=score_threshold,
                    nms_threshold=nms_threshold,
                    max_detections=max_detections,
                    vertices=self.vertex_decoder,
                )

        traced = detect.get_concrete_function()

        def run(images, windows, score_threshold, nms_threshold, max_detections):
            return traced(
                tf.constant(images),
                tf.constant(windows),
                tf.constant(score_threshold, tf.float32),
                tf.constant(nms_threshold, tf.float32),
                tf.constant(max_detections, tf.int32),
            )

        run.traces = detect.experimental_get_tracing_count  # type: ignore[attr-defined]
        return run

    @contextmanager
    def constant_weights(self) -> Iterator[Callable[[tf.Tensor], dict[str, tf.Tensor]]]:
        """Trace the model for inference, inside a `tf.function`: batch normalization folded, weights as constants.

        Yields:
            A function of images `[N, H, W, 3]` that returns the same predictions as the folded model. Inside the
            context, the weights of the dense branch are constants too.
        """
        with tf.init_scope():  # reads variables, outside of the graph
            blocks = {block: block.folded_weights() for block in self.conv_blocks}
            heads = {
                (prefix, level): self._head_weights(prefix, level)
                for prefix in self.stages
                for level in self.anchor_generator.sizes
            }
            offsets = [v for block in blocks if block.deformable for v in block.convolution.offsets.weights]
            dense = [] if self.vertex_decoder is None else self.vertex_decoder.weights
            constants = [(variable, variable.numpy()) for variable in (*offsets, *dense)]
        constants += [(block.convolution.kernel, kernel) for block, (kernel, _) in blocks.items()]
        constants += [(block.convolution.bias, bias) for block, (_, bias) in blocks.items() if block.folded]
        biases = {block: tf.constant(bias) for block, (_, bias) in blocks.items()}
        compute_dtype = keras.dtype_policies.get(self.layers_dtype).compute_dtype

        def predict(images):
            predictions = {}
            for prefix, contexts in self._features(images).items():
                weights = {
                    level: tuple(tf.cast(tf.constant(array), compute_dtype) for array in heads[prefix, level])
                    for level in contexts
                }
                predictions |= predict_merged(contexts, weights, self.stages[prefix], prefix)
            return predictions

        with keras.StatelessScope(constants), folded_convolutions(biases):
            yield predict

    def _head_weights(self, prefix, level):
        """Kernel and bias of a level's merged heads."""
        if self.folded:
            return self.get_layer(f"{prefix}heads_{level}").convolution.get_weights()
        return merged_weights([self.get_layer(f"{prefix}{kind}_head_{level}") for kind in self.stages[prefix]])

    @property
    def conv_blocks(self) -> list[ConvBlock]:
        """All `ConvBlock` layers, including nested ones, in the order of their creation."""
        return [layer for layer in self._flatten_layers() if isinstance(layer, ConvBlock)]

    @property
    def backbone_stages(self) -> dict[str, int]:
        """Stage of every backbone layer, counted from 1: dict of layer name to int."""
        stage_of = get_backbone(self.backbone).stage_of
        return {layer.name: stage_of(layer.name) for layer in self.layers if stage_of(layer.name)}

    @property
    def last_float_layer(self) -> str:
        """Name of the last layer that stays in floats in an int8 export."""
        return get_backbone(self.backbone).last_float_layer

    def fold(self) -> Self:
        """A new `RetinaFace` with `folded=True` that gives the same predictions, for inference and export.

        Batch normalization is folded into the convolutions, and the heads of a level become one convolution. On a CPU
        the folded model takes 0.7 times as long.

        Raises:
            ValueError: if this model is already folded.
        """
        if self.folded:
            raise ValueError("This model is already folded: `fold` takes a model with batch normalization.")
        with zero_kernels():
            folded = type(self)(**{**self.get_config(), "folded": True, "name": f"{self.name}_folded"})
        for ours, theirs in zip(self.conv_blocks, folded.conv_blocks, strict=True):
            ours.fold_into(theirs)
        for prefix in self.stages:
            for level in self.anchor_generator.sizes:
                folded.get_layer(f"{prefix}heads_{level}").convolution.set_weights(self._head_weights(prefix, level))
        if self.vertex_decoder is not None and folded.vertex_decoder is not None:
            folded.vertex_decoder.set_weights(self.vertex_decoder.get_weights())
        return folded

    def load_torch_weights(self, path: PathLike) -> bool:
        """Load the weights of a PyTorch checkpoint with the names of biubug6/Pytorch_Retinaface.

        Args:
            path: path of a `.pth`, `.pt` or `.pth.tar` file. From an ImageNet classifier, only the backbone is loaded.

        Returns:
            bool: True if the whole detector was loaded, False if only the backbone was.

        Raises:
            ValueError: (a `CheckpointError`) lists every tensor that is missing, unexpected or has another shape.
            OSError: if the file can't be read.
        """
        return self.assign_torch_weights(read_torch_checkpoint(path))

    def assign_torch_weights(self, tensors: Mapping[str, Any]) -> bool:
        """As `load_torch_weights`, from a dict of tensor name to array."""
        arrays, complete = to_keras(tensors, {v.path: tuple(v.shape) for v in self.variables}, BATCH_NORM_EPSILON)
        presets.assign(self.variables, arrays)
        return complete

    def save(self, filepath: PathLike, *args: Any, **kwargs: Any) -> None:
        """As in Keras, to a `.keras` file.

        Raises:
            ValueError: for a `.h5` file, because it could not be loaded again.
        """
        if Path(filepath).suffix.lower() in (".h5", ".hdf5"):
            raise ValueError(f"{filepath}: save the model as a .keras file. A .h5 file could not be loaded again")
        super().save(filepath, *args, **kwargs)

    def export(self, filepath: PathLike, format: str | None = None, verbose: bool = False, **options: Any) -> Path:
        """Export the detector, with decoding and NMS, to another format. See `retinaface_tf.export`.

        Unlike the `export` of Keras, which would write raw predictions.

        Args:
            filepath: path of the file, or folder of a SavedModel.
            format: "saved_model", "tflite" or "onnx". `None` chooses by the suffix; a path without one is a SavedModel.
            verbose: bool. Print the path, as Keras does.
            options: options of the format.

        Returns:
            The path of what was written.
        """
        _require_own_process()
        # By name: the exporters import this module.
        written: Path = import_module("retinaface_tf.export").export(self, filepath, format=format, **options)
        if verbose:
            print(f"Saved artifact at {str(written)!r}.")
        return written

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: Keras would not quantize the convolutions.

        Raises:
            NotImplementedError: always; the message shows how to export an int8 file.
        """
        raise NotImplementedError(
            "Keras can't quantize convolutions. Export an int8 file instead: "
            'model.export("faces.tflite", size=(480, 640), quantize="int8", calibration="photos/")'
        )

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


def _numbers(name: str, values: Sequence[float], count: int, low: float, high: float) -> tuple[float, ...]:
    """The values of an argument as floats in a range; ValueError names the argument."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(low <= number <= high for number in numbers):
        raise ValueError(f"`{name}` must be {count} numbers from {low:g} to {high:g}. Received: {name}={values!r}")
    return numbers


def _require_own_process():
    """Raise RuntimeError in a process that was forked after a model had started TensorFlow, where it would hang."""
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise RuntimeError(
            "TensorFlow hangs in a process that was forked after TensorFlow had started. "
            "Load the model in the child instead, "
            'start children by multiprocessing.get_context("spawn") (gunicorn: without --preload), or use an exported '
            ".tflite or .onnx file, which works after a fork"
        )


_process: int | None = None  # that of the first model
