"""The detector graph for one image in built-in LiteRT operations, whole or in parts for separate conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf.geometry.decoder import decode_image
from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.heads import FIRST, FIRST_HEADS, columns_of

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


class DetectorGraph:
    """A model's detection for single images, of any size or of one.

    It finds the same faces as `RetinaFace.detect`. With a fixed size every shape is static: the best `top_k` anchors
    are decoded in every image, and the outputs have room for `max_detections` faces.

    Args:
        network: `RetinaFace`, folded.
        size: (height, width) in pixels, or `None` for any.
        top_k: int. Maximum number of candidates passed to NMS; with a size at most the number of anchors.
        max_detections: int, at most `top_k`. Only with a size: without one it is an input.

    All that it returns are concrete functions with the weights as constants. Whole, it is a function of the `inputs`
    to a dict of "boxes" `[1, K, 4]`, "count" `[1]`, "landmarks" `[1, K, 5, 2]` and "scores" `[1, K]`, maybe "vertices".

    Attributes:
        inputs: dict name -> `tf.TensorSpec`: "images" uint8 `[1, H, W, 3]`, "windows" float32 `[1, 4]`,
            "score_threshold" and "nms_threshold", float32 scalars, and without a size "max_detections", an int32
            scalar. Windows may be larger than the image.
    """

    def __init__(
        self, network: RetinaFace, size: tuple[int, int] | None, top_k: int, max_detections: int | None = None
    ) -> None:
        self.network = network
        self.size = size
        self.top_k = top_k
        self.max_detections = max_detections
        self.inputs = {
            "images": tf.TensorSpec([1, *(size or (None, None)), 3], tf.uint8, name="images"),
            "windows": tf.TensorSpec([1, 4], tf.float32, name="windows"),
            "score_threshold": tf.TensorSpec([], tf.float32, name="score_threshold"),
            "nms_threshold": tf.TensorSpec([], tf.float32, name="nms_threshold"),
        }
        if size is None:
            self.inputs["max_detections"] = tf.TensorSpec([], tf.int32, name="max_detections")

    def whole(self) -> Any:
        """From the image to the faces."""
        part = self._from_pixels(self._heads("input"))

        def detect(images, *thresholds):
            features = tf.nest.flatten(part(images))  # Keras returns a single output without its list
            return self._faces(features, tf.shape(images), *thresholds)

        return freeze(detect, list(self.inputs.values()))

    def before(self, layer: str) -> Any:
        """From the image to what a layer of the network returns."""
        part = self._from_pixels(self.network.get_layer(layer).output)
        return freeze(lambda images: part(images), [self.inputs["images"]])

    def split_points(self) -> list[Any]:
        """Where `features` ends and `after` begins: list of Keras tensors.

        That is what the heads read; or, with deformable convolutions, what the pyramid reads, since the offsets at
        which those sample are not for eight bits.
        """
        if self.network.deformable:
            return list(self.network.get_layer("pyramid").input)
        return self._heads("input")

    def features(self, layer: str) -> Any:
        """From what that layer returns to the maps of `split_points`: a list."""
        start = self.network.get_layer(layer).output
        part = keras.Model(start, self.split_points())
        shape = keras.Model(self.network.inputs, start).compute_output_shape(tuple(self.inputs["images"].shape))
        return freeze(lambda features: part(features), [tf.TensorSpec(shape, tf.float32, name="features")])

    def after(self, shapes: Sequence[Sequence[int | None]]) -> Any:
        """From the images, of which only the shape is read, and maps of such shapes (`None`: varies) to the faces."""
        rest = keras.Model(self.split_points(), self._heads("input")) if self.network.deformable else list
        specs = [tf.TensorSpec(shape, tf.float32, name=f"features_{i}") for i, shape in enumerate(shapes)]
        images, *thresholds = self.inputs.values()

        def detect(images, *inputs):
            features = tf.nest.flatten(rest(list(inputs[: len(specs)])))
            return self._faces(features, tf.shape(images), *inputs[len(specs) :])

        return freeze(detect, [images, *specs, *thresholds])

    def _from_pixels(self, outputs):
        """A function of the images to Keras tensors of the network.

        The first convolution reads the pixels themselves: the normalization is part of its weights. To normalize every
        pixel takes LiteRT 4 % of the time of `detect` and 20 bytes of memory a pixel.
        """
        network = self.network
        pixels, mean = network.get_layer("pixels").output, np.asarray(network.pixel_mean, np.float32)
        block, *others = [layer for layer in network.layers if layer.input is pixels]
        if others or not isinstance(block, ConvBlock) or block.pad is None or (mean % 1).any():
            return keras.Model(network.inputs, outputs)
        kernel, bias = (value.numpy() for value in (block.convolution.kernel, block.convolution.bias))
        kernel = kernel / np.asarray(network.pixel_std, np.float32)[:, None]
        bias = bias - (kernel * mean[:, None]).sum(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
        color, border = tf.constant(mean[None, None, None], tf.uint8), block.kernel_size // 2  # a padding of zeros
        rest = keras.Model(block.output, outputs) if outputs is not block.output else lambda x: x

        def run(images):
            rows = tf.tile(color, [1, border, tf.shape(images)[2], 1])
            images = tf.concat([rows, images, rows], axis=1)
            columns = tf.tile(color, [1, tf.shape(images)[1], border, 1])
            images = tf.concat([columns, images, columns], axis=2)
            x = tf.nn.conv2d(tf.cast(images, tf.float32), kernel, block.strides, "VALID") + bias
            return rest(block.activate(x))

        return run

    def _heads(self, end):
        return [getattr(head, end) for head in self._head_layers()]

    def _head_layers(self):
        """Of each stage (see `RetinaFace.stages`) those of all levels: list."""
        levels = self.network.anchor_generator.sizes
        return [self.network.get_layer(f"{stage}heads_{level}") for stage in self.network.stages for level in levels]

    def _faces(self, features, shape, windows, score_threshold, nms_threshold, max_detections=None):
        network, stages = self.network, self.network.stages
        # Reshaped by hand: to pick the one image of the heads' outputs costs LiteRT a slow copy of all predictions.
        tables = [
            tf.reshape(head.convolution(one), [-1, head.values])
            for head, one in zip(self._head_layers(), features, strict=True)
        ]
        levels = len(network.anchor_generator.sizes)
        whole = [tf.concat(tables[i : i + levels], axis=0) for i in range(0, len(tables), levels)]
        tables = dict(zip(stages, whole, strict=True))
        columns = columns_of(stages[""])
        # The difference of every anchor's two logits as one product: picking columns of a long table is slow in LiteRT.
        margin = tf.constant([[-1.0], [1.0], *[[0.0]] * (tables[""].shape[1] - 2)])
        scores = tf.sigmoid(tf.reshape(tables[""] @ margin, [-1]))
        height, width = self.size or (shape[1], shape[2])
        frame = tf.cast(tf.stack([width, height, width, height]), tf.float32)

        def offsets_at(kind, rows):
            if kind == "first_box":
                return tf.gather(tables[FIRST], rows)[:, columns_of(FIRST_HEADS)["box"]]
            values = tf.gather(tables[""], rows)[:, columns[kind]]
            return tf.reshape(values, [-1, 5, 2]) if kind == "landmark" else values

        faces = decode_image(
            scores,
            offsets_at,
            lambda rows: network.anchor_generator.at(rows, height, width),
            tf.minimum(windows[0], frame),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=self.max_detections if max_detections is None else max_detections,
            variances=network.variances,
            top_k=self.top_k,
            cascade=FIRST in stages,
            vertices=network.vertex_decoder,
            static=self.size is not None,
        )
        return {name: value[None] for name, value in faces.items()}


def prepare_for_export(model: RetinaFace) -> RetinaFace:
    """Prepare a model for conversion: batch normalization folded, 32-bit floats: not every runtime has bfloat16.

    Never `model` itself comes back: what follows may rescale its weights.
    """
    config = model.get_config()
    if config["folded"] or config["dtype"] != "float32":
        copy = type(model)(**{**config, "dtype": "float32"})
        copy.set_weights(model.get_weights())
        model = copy
    return model if config["folded"] else model.fold()


def freeze(function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Any:
    """Trace a function and make its variables constants: concrete function."""
    traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(traced)
