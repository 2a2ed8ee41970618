"""A differentiable renderer in plain TensorFlow: a z-buffer says which triangle a pixel shows, barycentrics its color.

What a pixel shows is a smooth function of the triangle's corners as long as it is the same triangle, and that is what
gradients follow (as in Genova et al., arXiv 1806.06098); that a pixel changes from one triangle to another, or to the
background, has none.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

NOTHING = -1
EDGE = -1e-5  # a pixel on an edge belongs to both triangles: no cracks from rounding
SMALLEST = 1e-6  # square pixels, twice the area; a triangle below is an edge
TILE = 576  # pixels compared with all triangles at once: what they need stays in the CPU's cache


def rasterize(points: tf.Tensor, nearness: tf.Tensor, triangles: Any, height: int, width: int) -> Any:
    """The triangle that each pixel shows. Without gradient.

    Args:
        points: float32 `[M, V, 2]`, x and y in pixels, y down: pixel (row, column) has its center at (column + 0.5,
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
    """Images of meshes; all but `values` as in `rasterize`.

    Args:
        values: float32 `[M, V, C]`, such as colors; between vertices they are interpolated as perspective demands.

    Returns:
        (float32 `[M, height, width, C]`, 0 where there is nothing; float32 `[M, height, width]`, 1 where there is a
        triangle and 0 elsewhere, without gradient).
    """
    index = rasterize(points, nearness, triangles, height, width)
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


CAMERA = 7  # turn (3), shift (2), size, distance
NEAREST, USUAL = 1.5, 4.5  # the camera's distance in face sizes: `NEAREST + USUAL * exp(distance)`
LARGEST = 2.0  # wilder sizes and distances are held, so that the first steps of training stay finite


def pose(vertices, camera):
    """Rotate meshes into the view of a camera: float32 `[M, V, 3]` with the same axes.

    Args:
        vertices: float32 `[M, V, 3]`: x to the right, y up, z to the viewer, in face sizes around the face's middle.
        camera: float32 `[M, 7]`: rotation vector (its direction the axis, its length the angle in radians), then what
            `project` reads. Zeros: straight ahead.
    """
    return ops.matmul(vertices, ops.transpose(rotation_matrix(camera[:, :3]), (0, 2, 1)))


def project(vertices, camera, boxes):
    """Onto the image: a full perspective whose camera looks at the face from the distance that it is told.

    Args:
        vertices: float32 `[M, V, 3]`, posed; see `pose`.
        camera: float32 `[M, 7]`; of it shift (x to the right, y down, in parts of the box's size), size (logarithm of a
            factor) and distance (see `NEAREST`). Zeros: the mesh is as large as the box.
        boxes: float32 `[M, 4]`, `xyxy` pixels: the anchors.

    Returns:
        (float32 `[M, V, 3]`: x and y in pixels of the image, z in the same unit, 0 at the face's middle and smaller
        towards the camera; float32 `[M, V]`: nearness, the factor by which perspective magnifies, 1 at the middle).
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    sides = ops.maximum(high - low, 1e-3)
    size = ops.sqrt(sides[..., :1] * sides[..., 1:])  # [M, 1, 1]
    numbers = ops.clip(camera[:, None, 3:], -LARGEST, LARGEST)
    scale = size * ops.exp(numbers[..., 2:3])
    distance = NEAREST + USUAL * ops.exp(numbers[..., 3:4])
    # No vertex comes nearer to the camera than a tenth of the way.
    nearness = distance / ops.maximum(distance - vertices[..., 2:], 0.1 * distance)
    center = (low + high) / 2 + size * numbers[..., :2]
    x = center[..., :1] + scale * nearness * vertices[..., :1]
    y = center[..., 1:] - scale * nearness * vertices[..., 1:2]
    return ops.concatenate([x, y, -scale * vertices[..., 2:]], axis=-1), nearness[..., 0]


def rotation_matrix(vectors):
    """Rodrigues' formula: rotation vectors `[M, 3]` to matrices `[M, 3, 3]`, smooth at 0."""
    square = ops.sum(vectors**2, axis=-1, keepdims=True)
    angle = ops.sqrt(square + 1e-6)  # not less: an fp16 .tflite would hold 0, and divide by it
    x, y, z = (vectors[:, i : i + 1] for i in range(3))
    zero = ops.zeros_like(x)
    cross = ops.reshape(ops.concatenate([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1), (-1, 3, 3))
    outer = vectors[:, :, None] * vectors[:, None, :]
    sine = (ops.sin(angle) / angle)[..., None]
    versine = ((1 - ops.cos(angle)) / (angle * angle))[..., None]
    cosine = ops.cos(angle)[..., None]
    identity = ops.reshape(ops.convert_to_tensor([1.0, 0, 0, 0, 1, 0, 0, 0, 1], "float32"), (1, 3, 3))
    return cosine * identity + sine * cross + versine * outer


LIGHT = 9


def harmonics(normals):
    """The real spherical harmonics of orders 0 to 2, orthonormal on the sphere, of unit normals `[..., 3]`: `[..., 9]`.

    In order Y00; Y1-1, Y10, Y11 (along y, z, x); Y2-2, Y2-1, Y20, Y21, Y22. With nine of them the light of any distant
    surroundings on a matt surface is within 1 % on average (Ramamoorthi and Hanrahan, 2001).
    """
    x, y, z = tf.unstack(normals, axis=-1)
    first, second = np.sqrt(3 / (4 * np.pi)), np.sqrt(15 / (4 * np.pi))
    return tf.stack(
        [
            tf.ones_like(x) * np.sqrt(1 / (4 * np.pi)),
            *(first * y, first * z, first * x),
            *(second * x * y, second * y * z, np.sqrt(5 / (16 * np.pi)) * (3 * z * z - 1)),
            *(second * x * z, second / 2 * (x * x - y * y)),
        ],
        axis=-1,
    )


def shading(normals, light):
    """How bright a surface with unit normals `[M, V, 3]` is, as a factor of its color: float32 `[M, V]`.

    `light` `[M, 9]` are coefficients of `harmonics` beyond an even light of 1: zeros change no color.
    """
    return 1 + tf.einsum("mvk,mk->mv", harmonics(normals), light)


def vertex_normals(vertices, triangles):
    """Unit normals of a mesh's vertices `[M, V, 3]`: those of the triangles around, weighted by area; 0 without area.

    Triangles `[F, 3]` are counter-clockwise seen from outside, where y points up.
    """
    first, second, third = (tf.gather(vertices, triangles[:, i], axis=1) for i in range(3))
    normals = tf.transpose(tf.linalg.cross(second - first, third - first), [1, 0, 2])
    corners = np.asarray(triangles).T.ravel()
    count = vertices.shape[1]
    summed = tf.math.unsorted_segment_sum(tf.tile(normals, [3, 1, 1]), corners, count)
    summed = tf.transpose(summed, [1, 0, 2])
    return summed * tf.math.rsqrt(tf.reduce_sum(summed**2, axis=-1, keepdims=True) + 1e-12)
