"""Vertex labels in a tf.train.Example, and the per-face fields made of them. Only labeled faces take space.

`image/object/vertices/labelled` has a 0 or 1 for each face, `image/object/vertices/xyz` the coordinates of the faces
with a 1, one after the other, x as a part of the photo's width, y of its height and depth of its width, and
`image/object/vertices/residual` what the fit left for each face (see `dense.fit.Fit`), -1 where there was none.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from retinaface_tf.data.fields import FaceField

PREFIX = "image/object/vertices/"
NO_FIT = -1.0


def write_vertices(message, fits, size):
    """Put labels into a `tf.train.Example` of a photo of this (width, height); labels that it has are replaced.

    `fits` has for each face (vertices float `[V, 3]` in pixels or `None` where the face gets no label, residual float).
    """
    feature = message.features.feature
    labeled = [int(vertices is not None) for vertices, _ in fits]
    scale = np.array([size[0], size[1], size[0]], np.float64)
    parts = [np.asarray(vertices, np.float64) / scale for vertices, _ in fits if vertices is not None]
    for name in ("labelled", "xyz", "residual"):
        feature[PREFIX + name].Clear()
    feature[PREFIX + "labelled"].int64_list.value.extend(labeled)
    feature[PREFIX + "residual"].float_list.value.extend([residual for _, residual in fits])
    values = np.concatenate(parts).astype(np.float32).ravel().tolist() if parts else []
    feature[PREFIX + "xyz"].float_list.value.extend(values)


def vertex_fields(mirror: Sequence[int]) -> tuple[FaceField, ...]:
    """The vertices of each face, float32 `[V, 3]` in pixels, and whether they are labeled, int32.

    `mirror` `[V]` is each vertex's partner on the other side (`Topology.mirror`).
    """
    mirror = [int(partner) for partner in mirror]
    features = vertex_features()
    return (
        FaceField(
            "vertices",
            (len(mirror), 3),
            points=True,
            mirror=mirror,
            features=features,
            read=lambda raw, faces, size: read_vertices(raw, faces, size, len(mirror)),
        ),
        FaceField(
            "vertices_labeled", (), "int32", features=features, read=lambda raw, faces, size: read_labeled(raw, faces)
        ),
    )


def vertex_features():
    """What `tf.io.parse_single_example` has to know of them: dict."""
    many = {"allow_missing": True}
    return {
        f"{PREFIX}labelled": tf.io.FixedLenSequenceFeature([], tf.int64, **many),
        f"{PREFIX}xyz": tf.io.FixedLenSequenceFeature([], tf.float32, **many),
    }


def read_labeled(raw, faces, size=None):
    """Which faces have vertices: int32 `[N]`. Arguments as in `read_vertices`."""
    labeled = tf.cast(raw["object/vertices/labelled"], tf.int32)
    return tf.pad(labeled, [[0, tf.maximum(faces - tf.size(labeled), 0)]])


def read_vertices(raw, faces, size, num_vertices):
    """The vertices of all faces, in pixels: float32 `[N, V, 3]`, 0 where not labeled. Without labels no face is."""
    labeled = read_labeled(raw, faces)
    vertices = tf.reshape(raw["object/vertices/xyz"], [-1, num_vertices, 3]) * tf.stack([size[0], size[1], size[0]])
    shape = tf.cast(tf.stack([tf.size(labeled), num_vertices, 3]), tf.int64)
    return tf.scatter_nd(tf.where(labeled > 0), vertices, shape)
