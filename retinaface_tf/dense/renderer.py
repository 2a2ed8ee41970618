"""A differentiable renderer in plain TensorFlow: a z-buffer says which triangle a pixel shows, barycentrics its colour.

What a pixel shows is a smooth function of the triangle's corners as long as it is the same triangle, and that is what
gradients follow (as in Genova et al., arXiv 1806.06098); that a pixel changes from one triangle to another, or to the
background, has none.
"""

from typing import Any

import numpy as np
import tensorflow as tf

NOTHING = -1
EDGE = -1e-5  # a pixel on an edge belongs to both triangles: no cracks from rounding
SMALLEST = 1e-6  # square pixels, twice the area; a triangle below is an edge
TILE = 576  # pixels compared with all triangles at once: what they need stays in the CPU's cache


def rasterise(points: tf.Tensor, nearness: tf.Tensor, triangles: Any, height: int, width: int) -> Any:
    """Which triangle does every pixel see? Without gradient.

    Args:
        points: float32 `[M, V, 2]`, x and y in pixels, y down: pixel (row, column) has its centre at (column + 0.5,
            row + 0.5).
        nearness: float32 `[M, V]`, above 0, inverse to the distance from the camera. The nearer triangle hides others.
        triangles: int array `[F, 3]`, counter-clockwise seen from outside where y points up. Those seen from behind are
            not drawn.
        height, width: int, pixels.

    Returns:
        int32 `[M, height, width]`, index of a triangle or `NOTHING`.
    """
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(height * width)]).astype(np.float32)
    tiles = np.array_split(pixels, -(-height * width // TILE), axis=1)

    def one(mesh):
        corners, near = tf.gather(mesh[0], triangles), tf.gather(mesh[1], triangles)
        # Barycentric coordinates are affine in x and y: [F, 3 corners, 3 coefficients], by the opposite edge.
        following, last = tf.roll(corners, -1, axis=1), tf.roll(corners, -2, axis=1)
        slope_x = following[..., 1] - last[..., 1]
        slope_y = last[..., 0] - following[..., 0]
        constant = following[..., 0] * last[..., 1] - last[..., 0] * following[..., 1]
        area = tf.reduce_sum(constant, axis=1)
        front = area < -SMALLEST  # with y down
        planes = tf.stack([slope_x, slope_y, constant], axis=-1) / tf.where(front, area, -1.0)[:, None, None]
        planes = tf.where(front[:, None, None], planes, (0.0, 0.0, -1.0))
        depth = tf.reduce_sum(planes * near[..., None], axis=1)
        parts = []
        for tile in tiles:
            inside = tf.minimum(tf.matmul(planes[:, 0], tile), tf.matmul(planes[:, 1], tile))
            inside = tf.minimum(inside, tf.matmul(planes[:, 2], tile))
            nearest = tf.where(inside >= EDGE, tf.matmul(depth, tile), 0.0)
            best = tf.argmax(nearest, axis=0, output_type=tf.int32)
            parts.append(tf.where(tf.reduce_max(nearest, axis=0) > 0, best, NOTHING))
        return tf.concat(parts, axis=0)

    found = tf.map_fn(one, (points, nearness), fn_output_signature=tf.TensorSpec([height * width], tf.int32))
    return tf.stop_gradient(tf.reshape(found, [-1, height, width]))


def render(points: tf.Tensor, nearness: tf.Tensor, values: tf.Tensor, triangles: Any, height: int, width: int) -> Any:
    """Images of meshes.

    Args:
        points, nearness, triangles, height, width: as in `rasterise`.
        values: float32 `[M, V, C]`, such as colours; between vertices they are interpolated as perspective demands.

    Returns:
        (float32 `[M, height, width, C]`, 0 where there is nothing; float32 `[M, height, width]`, 1 where there is a
        triangle and 0 elsewhere, without gradient).
    """
    index = rasterise(points, nearness, triangles, height, width)
    covered = tf.reshape(index, [-1, height * width]) != NOTHING
    corners = tf.gather(tf.constant(triangles, tf.int32), tf.reshape(tf.maximum(index, 0), [-1, height * width]))
    # One gather for all that is known of a vertex.
    known = tf.gather(tf.concat([points, nearness[..., None], values], axis=-1), corners, batch_dims=1)  # [M, P, 3, .]
    x, y, near, values = known[..., 0], known[..., 1], known[..., 2], known[..., 3:]
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    x, y = x - np.float32(columns.reshape(1, -1, 1)), y - np.float32(rows.reshape(1, -1, 1))
    (x_0, x_1, x_2), (y_0, y_1, y_2) = tf.unstack(x, axis=-1), tf.unstack(y, axis=-1)
    parts = tf.stack([x_1 * y_2 - x_2 * y_1, x_2 * y_0 - x_0 * y_2, x_0 * y_1 - x_1 * y_0], axis=-1) * near
    whole = tf.where(covered, tf.reduce_sum(parts, axis=-1), 1.0)
    weights = tf.where(covered[..., None], parts / whole[..., None], 0.0)
    image = tf.reduce_sum(weights[..., None] * values, axis=2)
    shape = [-1, height, width]
    return tf.reshape(image, [*shape, values.shape[-1]]), tf.reshape(tf.cast(covered, tf.float32), shape)
