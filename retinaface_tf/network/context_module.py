"""SSH context module: features from 3x3, 5x5 and 7x7 windows."""

from typing import Any

import keras
from keras import ops

from retinaface_tf.network.conv_block import ConvBlock


def build_contexts(
    pyramid: dict[str, keras.KerasTensor],
    num_filters: int,
    negative_slope: float,
    shared: bool = False,
    prefix: str = "",
    **options: Any,
) -> dict[str, keras.KerasTensor]:
    """Apply a context module to every level `[N, H, W, C]`: dict level -> `[N, H, W, num_filters]`.

    With `shared` there is one module for all levels. `prefix` comes before the names of the layers; `options` are
    those of `ContextModule`.
    """

    def make(name):
        return ContextModule(num_filters, negative_slope, name=prefix + name, **options)

    one = make("context") if shared else None
    return {level: (one or make(f"context_{level}"))(x) for level, x in pyramid.items()}


@keras.saving.register_keras_serializable("retinaface_tf")
class ContextModule(keras.layers.Layer):
    """Context module of SSH (arXiv 1708.03979), the wide windows made of stacked 3x3 convolutions.

    Half of the channels see 3x3, a quarter 5x5 and a quarter 7x7. A plain ReLU ends all three, written before the
    concatenation so that it fuses with the convolutions; the public checkpoints have it after, which is the same.

    Args:
        num_filters: int, divisible by 4. Channels out.
        negative_slope: float. Of the two inner activations.
        folded, deformable: see `ConvBlock`; deformable are all five convolutions or none.

    Input and output: float tensors `[N, H, W, C]` and `[N, H, W, num_filters]`.
    """

    def __init__(
        self,
        num_filters: int,
        negative_slope: float,
        folded: bool = False,
        deformable: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_filters = num_filters
        self.negative_slope = negative_slope
        self.folded = folded
        self.deformable = deformable

        half, quarter = num_filters // 2, num_filters // 4
        options = {"folded": folded, "deformable": deformable, "dtype": self.dtype_policy}
        self.window_3 = ConvBlock(half, 3, negative_slope=0.0, name="window_3", **options)
        self.shared_5_7 = ConvBlock(quarter, 3, negative_slope=negative_slope, name="shared_5_7", **options)
        self.window_5 = ConvBlock(quarter, 3, negative_slope=0.0, name="window_5", **options)
        self.inner_7 = ConvBlock(quarter, 3, negative_slope=negative_slope, name="inner_7", **options)
        self.window_7 = ConvBlock(quarter, 3, negative_slope=0.0, name="window_7", **options)

    def build(self, input_shape: Any) -> None:
        inner_shape = (*input_shape[:-1], self.num_filters // 4)
        self.window_3.build(input_shape)
        self.shared_5_7.build(input_shape)
        self.window_5.build(inner_shape)
        self.inner_7.build(inner_shape)
        self.window_7.build(inner_shape)

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        window_3 = self.window_3(inputs, training=training)
        shared = self.shared_5_7(inputs, training=training)
        window_5 = self.window_5(shared, training=training)
        window_7 = self.window_7(self.inner_7(shared, training=training), training=training)
        return ops.concatenate([window_3, window_5, window_7], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.num_filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "negative_slope": self.negative_slope,
            "folded": self.folded,
            "deformable": self.deformable,
        }
