"""Import all registered layers, as `keras.saving.load_model` needs them."""

# isort: off
from retinaface_tf.common import tensorflow_backend  # noqa: F401 (before Keras: it names another backend)

# isort: on
from retinaface_tf.dense.branch import VertexDecoder
from retinaface_tf.dense.mesh_branch import MeshBranch
from retinaface_tf.dense.mesh_decoder import ChebyshevConv, MeshDecoder, MeshUpsampling
from retinaface_tf.detector import RetinaFace
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.geometry.decoder import DetectionDecoder
from retinaface_tf.network.build import PixelNormalization
from retinaface_tf.network.context_module import ContextModule
from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.deformable_conv import DeformableConv2D
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import MergedHeads, PredictionHead

__all__ = [
    "AnchorTarget",
    "ChebyshevConv",
    "ContextModule",
    "ConvBlock",
    "DeformableConv2D",
    "DetectionDecoder",
    "FeaturePyramid",
    "MergedHeads",
    "MeshBranch",
    "MeshDecoder",
    "MeshUpsampling",
    "PixelNormalization",
    "PredictionHead",
    "RetinaFace",
    "VertexDecoder",
]
