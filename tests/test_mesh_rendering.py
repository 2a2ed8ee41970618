"""Camera, light and renderer, against what can be computed by hand."""

import numpy as np
import pytest
import tensorflow as tf
from mesh_samples import sphere

from retinaface_tf.dense.renderer import (
    NOTHING,
    harmonics,
    pose,
    project,
    rasterize,
    render,
    rotation_matrix,
    shading,
    vertex_normals,
)

SQUARE = np.array([[0, 1, 2], [0, 2, 3]], np.int32)  # counter-clockwise with y up


def square(low, high):
    """Corners of a square in the image, y down: bottom left, bottom right, top right, top left."""
    return tf.constant([[[low, high], [high, high], [high, low], [low, low]]], tf.float32)


def test_a_square_covers_the_pixels_whose_centers_it_holds():
    index = rasterize(square(2, 6), tf.ones([1, 4]), SQUARE, 8, 8).numpy()[0]
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(index != NOTHING, expected)
    assert index[5, 5] == 0 and index[2, 2] == 1  # below and above the diagonal


def test_a_face_seen_from_behind_is_not_drawn():
    assert (rasterize(square(2, 6), tf.ones([1, 4]), SQUARE[:, ::-1], 8, 8).numpy() == NOTHING).all()


@pytest.mark.parametrize("order", [0, 1])
def test_the_nearer_of_two_squares_is_seen(order):
    points = tf.concat([square(0, 6), square(2, 8)], axis=1)
    near = [[1.0] * 4 + [2.0] * 4, [2.0] * 4 + [1.0] * 4][order]
    colors = tf.constant([[[1.0, 0, 0]] * 4 + [[0, 1.0, 0]] * 4])
    image, covered = render(points, tf.constant([near]), colors, np.concatenate([SQUARE, SQUARE + 4]), 8, 8)
    np.testing.assert_allclose(image[0, 4, 4], [[0, 1, 0], [1, 0, 0]][order])
    np.testing.assert_allclose(image[0, 1, 1], [1, 0, 0])
    np.testing.assert_allclose(image[0, 7, 7], [0, 1, 0])
    assert covered.numpy().sum() == 36 + 36 - 16


def test_colors_of_a_plane_are_a_ramp():
    colors = tf.constant([[[0.0], [1.0], [1.0], [0.0]]])  # along x
    image, _ = render(square(0, 8), tf.ones([1, 4]), colors, SQUARE, 8, 8)
    np.testing.assert_allclose(image[0, :, :, 0], np.tile((np.arange(8) + 0.5) / 8, (8, 1)), atol=1e-6)


def test_a_slanted_plane_is_foreshortened_as_perspective_demands():
    # A plane from x = -1, depth 1, to x = 3, depth 3, seen from the origin with focal length 8 and center 8:
    # x_image = 8 + 8 x / depth, from 0 to 16. The color is x: depth times the slope, and depth is (x + 3) / 2.
    depth = np.array([1.0, 3.0, 3.0, 1.0])
    x = np.array([-1.0, 3.0, 3.0, -1.0])
    points = np.stack([8 + 8 * x / depth, [16, 16, 0, 0]], axis=-1)[None].astype(np.float32)
    image, _ = render(
        tf.constant(points),
        tf.constant(1 / depth[None], tf.float32),
        tf.constant(x[None, :, None], tf.float32),
        SQUARE,
        16,
        16,
    )
    slope = (np.arange(16) + 0.5 - 8) / 8
    np.testing.assert_allclose(image[0, 8, :, 0], 1.5 * slope / (1 - slope / 2), atol=1e-5)


def test_a_lit_sphere_is_its_formula():
    vertices, triangles = sphere()
    light = np.zeros((1, 9), np.float32)
    light[0, 2] = 0.5  # along z, to the viewer
    light[0, 4] = 0.3
    brightness = shading(vertex_normals(tf.constant(vertices[None]), triangles), tf.constant(light))
    points = np.stack([32 + 28 * vertices[:, 0], 32 - 28 * vertices[:, 1]], axis=-1)[None]
    near = (1 + 0.1 * vertices[None, :, 2]).astype(np.float32)
    image, covered = render(points.astype(np.float32), near, brightness[..., None], triangles, 64, 64)
    y, x = np.meshgrid((32 - np.arange(64) - 0.5) / 28, (np.arange(64) + 0.5 - 32) / 28, indexing="ij")
    radius = x**2 + y**2
    z = np.sqrt(np.maximum(1 - radius, 0))
    expected = 1 + 0.5 * 0.488603 * z + 0.3 * 1.092548 * x * y
    inside = radius < 0.9
    assert np.abs(image[0, :, :, 0] - expected)[inside].max() < 0.02
    assert (covered.numpy()[0][radius < 0.97] == 1).all() and (covered.numpy()[0][radius > 1] == 0).all()


def test_harmonics_are_orthonormal_on_the_sphere():
    points = np.random.default_rng(0).normal(size=(200_000, 3)).astype(np.float32)
    values = harmonics(points / np.linalg.norm(points, axis=1, keepdims=True)).numpy()
    np.testing.assert_allclose(4 * np.pi * values.T @ values / len(values), np.eye(9), atol=0.02)


def test_gradients_of_the_renderer_are_finite_differences():
    points = tf.constant([[[1.3, 14.2], [14.6, 12.9], [7.1, 1.7]]])
    near, values = tf.constant([[1.0, 1.5, 0.8]]), tf.constant([[[0.2, 1], [0.9, 0], [0.5, 0.3]]])
    weights = np.random.default_rng(0).normal(size=(1, 16, 16, 2)).astype(np.float32)
    # Pixels that stay inside whatever moves: a change of what is covered has no gradient.
    inside = rasterize((points - 8) * 0.9 + 7.8, near, np.array([[0, 1, 2]]), 16, 16).numpy() != NOTHING
    assert inside.sum() > 40

    def loss(points, near, values):
        image, _ = render(points, near, values, np.array([[0, 1, 2]]), 16, 16)
        return tf.reduce_sum(image * weights * inside[..., None])

    inputs = [points, near, values]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(*inputs)
    for place, gradient in enumerate(tape.gradient(value, inputs)):
        for index in np.ndindex(*inputs[place].shape):
            step = np.zeros(inputs[place].shape, np.float32)
            step[index] = 0.01
            more, less = ([*inputs[:place], inputs[place] + s, *inputs[place + 1 :]] for s in (step, -step))
            numeric = (loss(*more) - loss(*less)) / 0.02
            np.testing.assert_allclose(gradient[index], numeric, rtol=0.02, atol=0.02)


def test_rotation_vectors():
    turns = rotation_matrix(tf.constant([[0.0, 0, 0], [0, np.pi / 2, 0]])).numpy()
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(turns[1] @ [0, 0, 1], [1, 0, 0], atol=1e-6)  # a nose turned to the image's right
    x = tf.constant([[0.0, 0, 0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = rotation_matrix(x)[0, 0, 1]
    np.testing.assert_allclose(tape.gradient(y, x), [[0, 0, -1]], atol=1e-6)


def test_a_camera_of_zeros_puts_the_face_into_its_box():
    vertices = tf.constant([[[0, 0.5, 0], [0, -0.5, 0], [0.25, 0, 0], [0, 0, 0.3]]])
    camera = np.zeros((1, 7), np.float32)
    boxes = tf.constant([[10.0, 20, 110, 120]])
    projected, nearness = project(pose(vertices, camera), camera, boxes)
    np.testing.assert_allclose(projected[0, :3], [[60, 20, 0], [60, 120, 0], [85, 70, 0]], atol=1e-4)
    np.testing.assert_allclose(projected[0, 3], [60, 70, -30], atol=1e-4)  # nearer to the camera
    np.testing.assert_allclose(nearness[0], [1, 1, 1, 6 / 5.7], atol=1e-5)


@pytest.mark.parametrize(("number", "expected"), [(3, (10, 0)), (4, (0, 10))])
def test_shifts_are_in_parts_of_the_box(number, expected):
    camera = np.zeros((1, 7), np.float32)
    camera[0, number] = 0.1
    projected, _ = project(tf.zeros([1, 1, 3]), camera, tf.constant([[0.0, 0, 100, 100]]))
    np.testing.assert_allclose(projected[0, 0, :2], np.add(50, expected), atol=1e-4)


def test_wild_parameters_stay_finite():
    camera = tf.constant(np.random.default_rng(0).normal(size=(20, 7)) * 100, tf.float32)
    projected, nearness = project(pose(tf.ones([20, 4, 3]), camera), camera, tf.zeros([20, 4]))
    assert np.isfinite(projected).all() and np.isfinite(nearness).all() and (nearness.numpy() > 0).all()
