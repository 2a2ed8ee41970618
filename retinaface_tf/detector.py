"""RetinaFace: the one model, from pixels to raw predictions and on to faces."""

import keras
import tensorflow as tf
from keras import ops

from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.network.backbone import build_backbone
from retinaface_tf.network.context_module import ContextModule
from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import PredictionHead

DEFAULT_ANCHORS = {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}
HEADS = {"face": (2,), "box": (4,), "landmark": (5, 2)}


@keras.saving.register_keras_serializable("retinaface_tf")
class RetinaFace(keras.Model):
    def __init__(
        self,
        backbone="mobilenet_v1_025",
        anchors=None,
        num_filters=64,
        shared_context=False,
        pixel_mean=(123.0, 117.0, 104.0),
        pixel_std=(1.0, 1.0, 1.0),
        variances=(0.1, 0.2),
        folded=False,
        dtype=None,
        **kwargs,
    ):
        anchors = DEFAULT_ANCHORS if anchors is None else anchors
        generator = AnchorGenerator(anchors)
        # The public checkpoints' rule: narrow pyramids leak, wide ones do not.
        slope = 0.1 if num_filters <= 64 else 0.0
        options = {"folded": folded, "dtype": dtype}

        images = keras.Input((None, None, 3), name="images", dtype="float32")
        x = keras.layers.Rescaling(
            scale=[1.0 / s for s in pixel_std],
            offset=[-m / s for m, s in zip(pixel_mean, pixel_std, strict=True)],
            dtype=dtype,
            name="pixels",
        )(images)
        features = build_backbone(backbone, x, **options)
        pyramid = FeaturePyramid(tuple(generator.sizes), num_filters, slope, name="pyramid", **options)(features)
        shared = ContextModule(num_filters, slope, name="context", **options) if shared_context else None
        predictions = {kind: [] for kind in HEADS}
        for level, sizes in generator.sizes.items():
            context = shared or ContextModule(num_filters, slope, name=f"context_{level}", **options)
            x = context(pyramid[level])
            for kind, shape in HEADS.items():
                head = PredictionHead(len(sizes), shape, name=f"{kind}_head_{level}", dtype=dtype)
                predictions[kind].append(head(x))
        outputs = {
            kind: keras.layers.Concatenate(axis=1, dtype="float32", name=kind)(parts) if len(parts) > 1 else parts[0]
            for kind, parts in predictions.items()
        }
        super().__init__(inputs=images, outputs=outputs, **kwargs)
        self.anchor_generator=generator
        self.folded=folded
        self.cfg=dict(backbone=backbone,anchors={k:list(v) for k,v in anchors.items()},num_filters=num_filters,shared_context=shared_context,dtype=dtype)
    def blocks(self):
        return [l for l in self._flatten_layers() if isinstance(l, (ConvBlock,PredictionHead))]
    def fold(self):
        f=RetinaFace(**self.cfg,folded=True)
        for a,b in zip(self.blocks(),f.blocks(),strict=True):
            if isinstance(a,ConvBlock): a.fold_into(b)
            else:
                b.convolution.set_weights(a.convolution.get_weights())
        return f
