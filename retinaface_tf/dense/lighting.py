"""Nine numbers a face for the light on it: spherical harmonics up to the second order."""

import numpy as np
import tensorflow as tf

LIGHT = 9


def harmonics(normals):
    """The real spherical harmonics Y of orders 0 to 2, orthonormal on the sphere.

    With nine of them the light of any distant surroundings on a matt surface is within 1 % on average (Ramamoorthi and
    Hanrahan, 2001).

    Args:
        normals: float32 `[..., 3]`, of length 1.

    Returns:
        float32 `[..., 9]`: Y00; Y1-1, Y10, Y11 (along y, z, x); Y2-2, Y2-1, Y20, Y21, Y22.
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
    """How bright a surface is, as a factor of its colour.

    Args:
        normals: float32 `[M, V, 3]`, of length 1.
        light: float32 `[M, 9]`, coefficients of `harmonics` beyond an even light of 1: zeros change no colour.

    Returns:
        float32 `[M, V]`.
    """
    return 1 + tf.einsum("mvk,mk->mv", harmonics(normals), light)


def vertex_normals(vertices, triangles):
    """Normals of a mesh's vertices: those of the triangles around them, weighted by area.

    Args:
        vertices: float32 `[M, V, 3]`.
        triangles: int array `[F, 3]`, counter-clockwise seen from outside, where y points up.

    Returns:
        float32 `[M, V, 3]`, of length 1 (0 where all triangles around a vertex are without area).
    """
    first, second, third = (tf.gather(vertices, triangles[:, i], axis=1) for i in range(3))
    normals = tf.transpose(tf.linalg.cross(second - first, third - first), [1, 0, 2])
    corners = np.asarray(triangles).T.ravel()
    count = vertices.shape[1]
    summed = tf.math.unsorted_segment_sum(tf.tile(normals, [3, 1, 1]), corners, count)
    summed = tf.transpose(summed, [1, 0, 2])
    return summed * tf.math.rsqrt(tf.reduce_sum(summed**2, axis=-1, keepdims=True) + 1e-12)
