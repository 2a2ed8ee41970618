"""RetinaFace's first dense branch: what the network sees at an anchor becomes a face in three dimensions."""

import keras
import numpy as np
from keras import ops

from retinaface_tf.dense.camera import CAMERA, pose, project
from retinaface_tf.dense.lighting import LIGHT
from retinaface_tf.dense.mesh_decoder import MeshDecoder


@keras.saving.register_keras_serializable("retinaface_tf")
class MeshBranch(keras.layers.Layer):
    """Shape, texture, camera and light of single faces (arXiv 1905.00641, sections 3.2 and 3.3).

    The head is the 1x1 convolution of the other heads, computed only where it is asked: at the anchors that answer for
    a face in training, and at the detections that are kept in inference. It costs nothing for all other anchors.

    Args:
        hierarchy: dict, a `MeshHierarchy` as `to_config` writes it.
        kinds: int. Anchors differ in so many ways: sizes of all levels together. Each has a head of its own.
        landmarks: five lists of vertices, of which a face's landmarks are the means; or `None`.
        filters, order, codes: see `MeshDecoder`.
    """

    def __init__(self, hierarchy, kinds, landmarks=None, filters=16, order=3, codes=128, **kwargs):
        # Pixels stay float32 under every policy, and the branch is small.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.hierarchy = hierarchy
        self.kinds = kinds
        self.landmarks = landmarks
        self.filters = filters
        self.order = order
        self.codes = codes
        self.values = codes + CAMERA + LIGHT
        start = keras.initializers.RandomNormal(stddev=0.01)
        self.head = keras.layers.Dense(kinds * self.values, kernel_initializer=start, name="head", dtype="float32")
        self.decoder = MeshDecoder(hierarchy, filters, order, codes, name="decoder", dtype="float32")

    @property
    def triangles(self):
        """int32 `[F, 3]`, of the mesh that comes out."""
        return self.decoder.triangles

    def build(self, input_shape):
        self.head.build(input_shape)
        self.decoder.build((None, self.codes))

    def parameters(self, features, kind):
        """What the head says.

        Args:
            features: float tensor `[M, C]`: the context module's output at each anchor's cell.
            kind: int tensor `[M]`, which of the `kinds` of anchor.

        Returns:
            (float32 `[M, codes]`, float32 `[M, 7]`, float32 `[M, 9]`): shape and texture, camera, light.
        """
        rows = ops.reshape(self.head(ops.cast(features, "float32")), (-1, self.values))
        rows = ops.take(rows, ops.arange(ops.shape(kind)[0], dtype="int32") * self.kinds + kind, axis=0)
        return rows[:, : self.codes], rows[:, self.codes : self.codes + CAMERA], rows[:, self.codes + CAMERA :]

    def landmarks_of(self, vertices):
        """The five landmarks of faces' vertices `[M, V, 3]`: float32 `[M, 5, 2]`."""
        means = [
            ops.mean(ops.take(vertices[..., :2], np.array(one, np.int32), axis=1), axis=1) for one in self.landmarks
        ]
        return ops.stack(means, axis=1)

    def vertices(self, features, kind, boxes):
        """Faces' vertices in the image: float32 `[M, V, 3]`, see `project`. Arguments as in `call`."""
        return self(features, kind, boxes)["projected"]

    def call(self, features, kind, boxes):
        """All that a renderer wants to know of faces.

        Args:
            features, kind: as in `parameters`.
            boxes: float32 `[M, 4]`, `xyxy` pixels, as the detector predicts them: the mesh is placed in relation.

        Returns:
            dict of float32 tensors: "codes", "camera" and "light" as `parameters` gives them; "shape" `[M, V, 3]`, the
            face at rest; "colours" `[M, V, 3]`, RGB in (0, 1), without light; "posed" `[M, V, 3]`, turned; "projected"
            `[M, V, 3]` and "nearness" `[M, V]`, in the image: see `project`.
        """
        codes, camera, light = self.parameters(features, kind)
        shape, colours = self.decoder(codes)
        posed = pose(shape, camera)
        projected, nearness = project(posed, camera, boxes)
        return {
            **{"codes": codes, "camera": camera, "light": light, "shape": shape, "colours": colours},
            **{"posed": posed, "projected": projected, "nearness": nearness},
        }

    def compute_output_spec(self, features, kind, boxes):
        count, vertices = features.shape[0], len(self.decoder.mean)
        each = {"codes": (self.codes,), "camera": (CAMERA,), "light": (LIGHT,), "nearness": (vertices,)}
        names = ("codes", "camera", "light", "shape", "colours", "posed", "projected", "nearness")
        return {n: keras.KerasTensor((count, *each.get(n, (vertices, 3))), "float32") for n in names}

    def get_config(self):
        return {
            **super().get_config(),
            "hierarchy": self.hierarchy,
            "kinds": self.kinds,
            "landmarks": self.landmarks,
            "filters": self.filters,
            "order": self.order,
            "codes": self.codes,
        }
