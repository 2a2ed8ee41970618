"""Graph convolution, simplified meshes and the decoder along them."""

import json

import keras
import numpy as np
import pytest
from mesh_samples import dome

from retinaface_tf.dense.mesh_decoder import ChebyshevConv, MeshDecoder, MeshHierarchy, MeshUpsampling, build_hierarchy

VERTICES, TRIANGLES = dome()


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(VERTICES, TRIANGLES, levels=3)


def dense_laplacian(triangles, count):
    """`L - I` of the normalized Laplacian, by its definition."""
    adjacency = np.zeros((count, count))
    for a, b, c in triangles:
        for i, j in ((a, b), (b, c), (c, a)):
            adjacency[i, j] = adjacency[j, i] = 1
    root = np.diag(adjacency.sum(axis=1) ** -0.5)
    return np.eye(count) - root @ adjacency @ root - np.eye(count)


def test_chebyshev_convolution_is_the_polynomial_of_the_dense_laplacian():
    layer = ChebyshevConv(5, 4, TRIANGLES, len(VERTICES))
    x = np.random.default_rng(0).normal(size=(len(VERTICES), 2, 3)).astype(np.float32)
    found = layer(x).numpy()
    layer.bias.assign(np.arange(5.0))
    laplacian = dense_laplacian(TRIANGLES, len(VERTICES))
    assert np.abs(np.linalg.eigvalsh(laplacian)).max() < 1 + 1e-6
    first = np.einsum("ij,jmc->imc", laplacian, x)
    second = 2 * np.einsum("ij,jmc->imc", laplacian, first) - x
    third = 2 * np.einsum("ij,jmc->imc", laplacian, second) - first
    expected = np.concatenate([x, first, second, third], axis=-1) @ layer.kernel.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(layer(x), expected + np.arange(5.0), atol=1e-5)


def test_a_filter_of_order_k_sees_k_minus_1_edges_far():
    x = np.zeros((len(VERTICES), 1, 1), np.float32)
    middle = len(VERTICES) // 2
    x[middle] = 1
    reach = {middle}
    for order in (1, 2, 3):
        layer = ChebyshevConv(1, order, TRIANGLES, len(VERTICES))
        layer.build(x.shape)
        layer.kernel.assign(np.ones(layer.kernel.shape))
        seen = set(np.flatnonzero(np.abs(layer(x).numpy()[:, 0, 0]) > 1e-7).tolist())
        assert seen <= reach and (order == 1 or len(seen) > 1)
        reach |= {v for t in TRIANGLES.tolist() if reach & set(t) for v in t}


def test_going_down_and_up_returns_to_the_kept_vertices(hierarchy):
    np.testing.assert_array_equal(hierarchy.vertices[0], VERTICES)
    assert len(hierarchy.vertices) == 3
    for level, down in enumerate(hierarchy.down):
        fine, coarse = hierarchy.vertices[level], hierarchy.vertices[level + 1]
        np.testing.assert_array_equal(fine[down], coarse)
        weights = hierarchy.up_weights[level]
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        assert weights.min() >= 0
        up = MeshUpsampling(hierarchy.up_indices[level], weights)
        back = up(coarse[:, None]).numpy()[:, 0]
        np.testing.assert_array_equal(back[down], coarse)
        # What was dropped lies near the coarse surface: the dome is 1 high.
        assert np.linalg.norm(back - fine, axis=1).mean() < 0.03 * (level + 1)


def test_up_sampling_is_the_mean_that_it_says():
    up = MeshUpsampling([[0, 1, 1], [1, 0, 0]], [[0.25, 0.75, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(up(np.array([[[8.0]], [[4.0]]])), [[[5.0]], [[6.0]]])


def test_a_hierarchy_survives_json(hierarchy):
    copy = MeshHierarchy.from_config(json.loads(json.dumps(hierarchy.to_config())))
    for ours, theirs in zip(vars(hierarchy).values(), vars(copy).values(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="not a mesh hierarchy"):
        MeshHierarchy.from_config({"vertices": [["<f4", [3], "AAAA"]]})


def test_a_vertex_of_no_triangle_is_refused():
    with pytest.raises(ValueError, match="must use every one of the 170 vertices"):
        build_hierarchy(np.concatenate([VERTICES, [[0, 0, 9]]]), TRIANGLES)


def test_parameters_of_zero_are_the_mean_face_and_others_are_not(hierarchy):
    decoder = MeshDecoder(hierarchy.to_config(), filters=8, order=2, codes=6)
    vertices, colors = decoder(np.zeros((2, 6), np.float32))
    np.testing.assert_allclose(vertices, np.stack([VERTICES] * 2), atol=1e-6)
    np.testing.assert_allclose(colors[0, 0], decoder.skin, atol=1e-6)
    moved, tinted = decoder(np.ones((1, 6), np.float32))
    assert np.abs(moved - VERTICES).max() > 1e-3
    assert tinted.numpy().min() > 0 and tinted.numpy().max() < 1


@pytest.mark.parametrize("name", ["decoder", "convolution", "up"])
def test_layers_come_back_from_their_configuration(name, hierarchy):
    layer, x = {
        "decoder": (MeshDecoder(hierarchy.to_config(), filters=4, order=2, codes=6), np.ones((1, 6))),
        "convolution": (ChebyshevConv(2, 3, TRIANGLES, len(VERTICES)), np.ones((len(VERTICES), 1, 3))),
        "up": (
            MeshUpsampling(hierarchy.up_indices[0], hierarchy.up_weights[0]),
            np.ones((len(hierarchy.vertices[1]), 1, 3)),
        ),
    }[name]
    x = x.astype(np.float32)
    found = layer(x)
    twin = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    twin(x)
    twin.set_weights(layer.get_weights())
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(twin(x)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {k: v for k, v in twin.get_config().items() if k != "dtype"} == {
        k: v for k, v in layer.get_config().items() if k != "dtype"
    }
