"""Photos of different numbers of faces -> batches of one shape."""

import tensorflow as tf

from retinaface_tf.common.landmarks import NOT_LABELED
from retinaface_tf.data.graph import as_graph


def padded_batches(
    photos: tf.data.Dataset,
    image_size: int,
    batch_size: int,
    max_faces: int | None = None,
    drop_remainder: bool = True,
    num_vertices: int = 0,
) -> tf.data.Dataset:
    """Batch photos; padding faces have boxes of zeros and NOT_LABELED landmarks.

    Args:
        photos: `tf.data.Dataset` of what `load_photo` gives.
        image_size: int.
        batch_size: int.
        max_faces: int, faces of each photo, of more the smallest are left out; or `None`: as many as the fullest photo
            of the batch has, at least 1.
        drop_remainder: leave out a last batch that is smaller.
        num_vertices: int, vertices of each face; 0 for faces without. Padding has none labelled.
    """
    if max_faces:
        photos = photos.map(as_graph(lambda image, faces: (image, _largest(faces, max_faces))))
    shapes = {"boxes": [max_faces, 4], "landmarks": [max_faces, 5, 2], "visible": [max_faces, 5], "image_weight": []}
    values = {"boxes": 0.0, "landmarks": 0.0, "visible": NOT_LABELED, "image_weight": 0.0}
    if num_vertices:
        shapes |= {"vertices": [max_faces, num_vertices, 3], "vertices_labelled": [max_faces]}
        values |= {"vertices": 0.0, "vertices_labelled": 0}
    batches = photos.padded_batch(
        batch_size, ([image_size, image_size, 3], shapes), (tf.constant(0, tf.uint8), values), drop_remainder
    )
    if not max_faces:
        batches = batches.map(as_graph(_at_least_one))
    options = tf.data.Options()
    options.deterministic = True
    # Workers are told apart here; a second split by the strategy would lose photos.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(4).with_options(options)


def _largest(faces, max_faces):
    """The largest faces, in the order they had."""
    sides = faces["boxes"][:, 2:] - faces["boxes"][:, :2]
    order = tf.argsort(sides[:, 0] * sides[:, 1], direction="DESCENDING", stable=True)
    kept = tf.sort(order[:max_faces])
    return {key: value if key == "image_weight" else tf.gather(value, kept) for key, value in faces.items()}


def _at_least_one(images, faces):
    missing = tf.maximum(1 - tf.shape(faces["boxes"])[1], 0)

    def padded(key, values):
        if key == "image_weight":
            return values
        margins = [[0, 0], [0, missing], *[[0, 0]] * (values.shape.rank - 2)]
        return tf.pad(values, margins, constant_values=NOT_LABELED if key == "visible" else 0)

    return images, {key: padded(key, values) for key, values in faces.items()}
