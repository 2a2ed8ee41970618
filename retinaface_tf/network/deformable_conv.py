"""Deformable convolution: each kernel tap reads the map at a predicted position."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

VERSIONS = ("v1", "v2")


@keras.saving.register_keras_serializable("retinaface_tf")
class DeformableConv2D(keras.layers.Layer):
    """Deformable convolution of stride 1: each tap of the kernel moves by an offset that a convolution predicts.

    "v1" (arXiv 1703.06211) has offsets alone. "v2" (arXiv 1811.11168) also multiplies each tap by `2 * sigmoid(m)`,
    where the paper has `sigmoid(m)` and a learning rate of a tenth. Offsets and m begin at 0, so that both begin as the
    plain convolution with the same kernel. Outside the map all is 0. Places are computed in float32 under every policy:
    bfloat16 would round them to half a pixel beyond the 128th.

    Args:
        filters: int. Channels out.
        kernel_size: int, odd.
        version: "v1" or "v2".
        use_bias: bool.
        kernel_initializer: of the kernel, as in `keras.layers.Conv2D`.

    Input and output: float tensors `[N, H, W, C]`, `[N, H, W, filters]`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        version: str = "v2",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if version not in VERSIONS:
            raise ValueError(f"`version` must be one of {list(VERSIONS)}. Received: version={version!r}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd. Received: kernel_size={kernel_size}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.version = version
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.taps = kernel_size**2
        self.offsets = keras.layers.Conv2D(
            self.taps * (3 if version == "v2" else 2),  # rows, columns, m
            kernel_size,
            padding="same",
            kernel_initializer="zeros",
            data_format="channels_last",
            name="offsets",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias: Any = (
            self.add_weight(shape=(self.filters,), initializer="zeros", name="bias") if self.use_bias else None
        )
        self.offsets.build(input_shape)

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        _, height, width, channels = ops.shape(inputs)
        taps, reach = self.taps, self.kernel_size // 2
        moves, factors = ops.cast(self.offsets(inputs), "float32"), None
        if self.version == "v2":
            moves, modulation = tf.split(moves, [2 * taps, taps], axis=-1)
            factors = 2 * ops.sigmoid(modulation)
        y, x = (ops.cast(ops.arange(side, dtype="int32"), "float32") for side in (height, width))
        is_row = np.repeat(np.array([1, 0], np.float32), taps)
        tap_places = np.concatenate(np.divmod(np.arange(taps), self.kernel_size)).astype(np.float32) - reach
        regular = ops.reshape(y, (-1, 1, 1)) * is_row + (ops.reshape(x, (-1, 1)) * (1 - is_row) + tap_places)
        kernel = ops.reshape(ops.cast(self.kernel, self.compute_dtype), (taps, channels, self.filters))
        result = sampled_convolution(inputs, kernel, moves + regular, factors, training)
        return result if self.bias is None else result + ops.cast(self.bias, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "version": self.version,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def sampled_convolution(
    x: keras.KerasTensor,
    kernel: keras.KerasTensor,
    points: keras.KerasTensor,
    factors: Any = None,
    training: bool | None = True,
) -> keras.KerasTensor:
    """Convolution whose K taps each sample at a place of their own.

    `result[p] = sum over k of factors[p, k] * x at points[p, k] @ kernel[k]`, where x between pixels is bilinear and x
    outside the map is 0, as in Deformable ConvNets (arXiv 1703.06211, 1811.11168). The taps' products are taken before
    the sampling, which is linear too: where there are no more filters than channels, less is gathered so.

    Args:
        x: float tensor `[N, H, W, C]`.
        kernel: float tensor `[K, C, F]`.
        points: float32 tensor `[N, H', W', 2 K]`, K rows and then K columns, in pixels; 0 is the first one's center.
        factors: float32 tensor `[N, H', W', K]`, or `None` for 1.
        training: bool. Whether memory is to be saved for the gradient. Converters want a graph without that.

    Returns:
        float tensor `[N, H', W', F]`.
    """
    batch, height, width, channels = ops.shape(x)
    taps, _, filters = kernel.shape
    places, weights = _neighbors(points, batch, height, width, taps)
    if factors is not None:
        factors = ops.reshape(factors, (-1, taps))
        weights = [weights[0] * factors, weights[1], weights[2] * factors, weights[3]]
    corners = [(row, column) for row in (0, 2) for column in (1, 3)]
    places = [places[row] + places[column] for row, column in corners]
    weights = [ops.cast(weights[row] * weights[column], x.dtype) for row, column in corners]
    table_kernel = ops.reshape(ops.transpose(kernel, (1, 0, 2)), (channels, taps * filters))
    gathered_sum = _frugal_sum if training else _gathered_sum
    result = gathered_sum(ops.reshape(x, (-1, channels)), table_kernel, weights, places)
    return ops.reshape(result, (*ops.shape(points)[:3], filters))


def _neighbors(points, batch, height, width, taps):
    """The pixels around every point, above, left, below, right: places and weights, four tensors `[P, K]` of each.

    The sum of a row's and a column's place is the row of a table that has, for every image, row and column, K entries.
    Outside the map a weight is 0.
    """

    # Vectors over [rows above, columns left, rows below, columns right].
    is_row = np.tile(np.repeat(np.array([1, 0], np.int32), taps), 2)
    is_column = 1 - is_row
    last = ops.cast((height - 1) * is_row + (width - 1) * is_column, "float32")
    step = width * taps * is_row + taps * is_column
    tap = np.tile(np.arange(taps, dtype=np.int32), 4) * is_column

    low = ops.floor(points)
    share = points - low
    wanted = ops.concatenate([low, low + 1], axis=-1)
    # Where a coordinate is NaN the place is 0, too, and its weight NaN: a loss that is not finite rather than a crash.
    pixel = ops.minimum(ops.where(wanted > 0, wanted, 0.0), last)
    weights = ops.concatenate([1 - share, share], axis=-1) * ops.cast(ops.equal(wanted, pixel), "float32")
    places = ops.cast(pixel, "int32") * step + tap
    if not isinstance(batch, int) or batch > 1:
        images = ops.reshape(ops.arange(batch, dtype="int32") * (height * width * taps), (-1, 1, 1, 1))
        places = places + images * is_row
    return tuple(tf.split(ops.reshape(array, (-1, 4 * taps)), 4, axis=-1) for array in (places, weights))


def _gathered_sum(x, kernel, weights, places):
    """Sum over the four corners and K taps of rows of the table `x @ kernel`, each times its weight: `[P, F]`.

    `x` is `[R, C]`, `kernel` `[C, K * F]`, so that the table has `R * K` rows of F.
    """
    table = _table(x, kernel, taps=weights[0].shape[1])
    corners = zip(weights, places, strict=True)
    return tf.add_n([tf.reduce_sum(tf.gather(table, p) * tf.expand_dims(w, -1), axis=1) for w, p in corners])


def _frugal_sum(x, kernel, weights, places):
    """The same result, but the gradient recomputes the table per corner: storing it needs 36 F numbers per pixel."""
    taps = weights[0].shape[1]

    @tf.custom_gradient
    def compute(x, kernel, *weights):
        def gradient(upstream):
            with tf.control_dependencies([upstream]):  # or TensorFlow would see that it is the same table, and keep it
                table = _table(x, kernel, taps)
            to_weights, to_table = [], []
            for weight, place in zip(weights, places, strict=True):
                to_weights.append(tf.reduce_sum(tf.gather(table, place) * upstream[:, None], axis=-1))
                parts = weight[..., None] * upstream[:, None]
                to_table.append(tf.math.unsorted_segment_sum(parts, place, tf.shape(table)[0]))
            slopes = tf.reshape(tf.add_n(to_table), [-1, kernel.shape[1]])
            to_x = tf.matmul(slopes, kernel, transpose_b=True)
            to_kernel = tf.matmul(x, slopes, transpose_a=True)
            return (to_x, to_kernel, *to_weights)

        return _gathered_sum(x, kernel, weights, places), gradient

    return compute(x, kernel, *weights)


def _table(x, kernel, taps):
    return tf.reshape(x @ kernel, [-1, kernel.shape[1] // taps])
