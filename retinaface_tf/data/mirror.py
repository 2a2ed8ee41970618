"""Left and right exchanged."""

from collections.abc import Sequence

import tensorflow as tf

from retinaface_tf.data.cleaning import MIRRORED_LANDMARKS


def mirror(
    image: tf.Tensor, faces: dict[str, tf.Tensor], vertex_mirror: Sequence[int] | None = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A mirrored image and its faces. The left eye is again the one on the left.

    Args:
        image: `[H, W, 3]`.
        faces: dict of `boxes` float32 `[N, 4]`, `landmarks` float32 `[N, 5, 2]`, `visible` int32 `[N, 5]`, in pixels of
            the image; maybe `vertices` float32 `[N, V, 3]` too.
        vertex_mirror: ints `[V]`, see `Topology.mirror`: as with the landmarks, a vertex is again on its own side.

    Returns:
        (image, faces).
    """
    width = tf.cast(tf.shape(image)[1], tf.float32)
    left, top, right, bottom = tf.unstack(faces["boxes"], axis=-1)
    points = tf.gather(faces["landmarks"], MIRRORED_LANDMARKS, axis=1)
    if "vertices" in faces:
        vertices = tf.gather(faces["vertices"], vertex_mirror, axis=1)
        faces = {**faces, "vertices": tf.concat([width - vertices[..., :1], vertices[..., 1:]], axis=-1)}
    return tf.reverse(image, axis=[1]), {
        **faces,
        "boxes": tf.stack([width - right, top, width - left, bottom], axis=-1),
        "landmarks": tf.stack([width - points[..., 0], points[..., 1]], axis=-1),
        "visible": tf.gather(faces["visible"], MIRRORED_LANDMARKS, axis=1),
    }
