"""Deformable convolutions: against one number at a time in NumPy, finite differences, and the plain convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import run_layer_checks
from test_layers import noise, randomize

from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.deformable_conv import DeformableConv2D, sampled_convolution


def in_numpy(x, offsets, kernel, bias, version):
    """The layer as its papers define it, pixel by pixel, tap by tap; `offsets` are what its convolution says."""
    size, taps = kernel.shape[0], kernel.shape[0] ** 2
    batch, height, width, channels = x.shape
    result = np.zeros((batch, height, width, kernel.shape[3])) + bias
    for n, i, j, tap in np.ndindex(batch, height, width, taps):
        row, column = divmod(tap, size)
        told = offsets[n, i, j]
        y, z = i + row - size // 2 + told[tap], j + column - size // 2 + told[taps + tap]
        value = np.zeros(channels)
        for p in range(height):
            for q in range(width):
                value += x[n, p, q] * max(0, 1 - abs(y - p)) * max(0, 1 - abs(z - q))
        factor = 2 / (1 + np.exp(-told[2 * taps + tap])) if version == "v2" else 1
        result[n, i, j] += factor * value @ kernel[row, column]
    return result


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_layer(version, kernel_size):
    arguments = {"filters": 5, "kernel_size": kernel_size, "version": version, "use_bias": version == "v1"}
    run_layer_checks(DeformableConv2D, arguments, noise(4))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("reach", [0.5, 4.0])  # of a map of 5 x 4, so that every second sample is outside it
def test_random_offsets_as_in_numpy(version, reach):
    x = noise(3)(5, 4)
    layer = DeformableConv2D(2, 3, version=version)
    layer(x)
    randomize(layer)
    layer.offsets.kernel.assign(reach * layer.offsets.kernel / 4)
    layer.offsets.bias.assign(reach * layer.offsets.bias)
    offsets = layer.offsets(x).numpy()
    places = np.arange(5).reshape(5, 1, 1) + np.repeat([-1, 0, 1], 3) + offsets[..., :9]
    outside = ((places < 0) | (places > 4)).mean()
    assert outside > (0.4 if reach > 1 else 0.1)
    expected = in_numpy(x, offsets, layer.kernel.numpy(), layer.bias.numpy(), version)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 6), (7, 5)])
def test_it_begins_as_the_plain_convolution(version, height, width):
    x = noise(8)(height, width)
    layer, plain = DeformableConv2D(6, 3, version=version), keras.layers.Conv2D(6, 3, padding="same")
    layer(x), plain(x)
    plain.kernel.assign(layer.kernel)
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-5)


def test_an_offset_of_a_pixel_is_the_neighboring_pixel():
    """Rows before columns, down and right are positive: a kernel of one tap that reads one below, two to the left."""
    x = np.arange(12, dtype="float32").reshape(1, 3, 4, 1)
    layer = DeformableConv2D(1, 1, version="v1")
    layer(x)
    layer.kernel.assign([[[[1.0]]]])
    layer.offsets.bias.assign([1.0, -2.0])
    assert layer(x).numpy()[0, ..., 0].tolist() == [[0, 0, 4, 5], [0, 0, 8, 9], [0, 0, 0, 0]]


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(training):
    """Of everything that the layer learns or passes on, at points away from the kinks at whole pixels."""
    random = np.random.default_rng(4)
    low = random.integers(-2, 5, (1, 4, 3, 2 * 4))
    start = {
        "x": random.normal(size=(1, 4, 3, 3)),
        "kernel": random.normal(size=(4, 3, 2)),
        "points": low + random.uniform(0.2, 0.8, low.shape),
        "factors": random.uniform(0.5, 1.5, (1, 4, 3, 4)),
    }
    start = {name: value.astype("float32") for name, value in start.items()}
    weight = random.normal(size=(1, 4, 3, 2)).astype("float32")

    def loss(values):
        return tf.reduce_sum(weight * sampled_convolution(**values, training=training))

    tensors = {name: tf.constant(value) for name, value in start.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(tensors)
    for name, gradient in tape.gradient(value, tensors).items():
        assert np.abs(gradient).max() > 0.1
        for index in random.integers(0, start[name].size, 5):
            step = 0.1  # the loss is linear in each number by itself, as long as its cell is the same
            around = [start[name].copy() for _ in range(2)]
            around[0].flat[index] -= step
            around[1].flat[index] += step
            down, up = (float(loss({**tensors, name: tf.constant(array)})) for array in around)
            assert abs(np.ravel(gradient)[index] - (up - down) / (2 * step)) < 1e-3, (name, index)


def test_wild_offsets_are_outside_and_nan_stays_visible():
    x = noise(3)(4, 4)
    layer = DeformableConv2D(2, 3, version="v1", use_bias=False)
    layer(x)
    for wild in (1e9, -1e30):
        layer.offsets.bias.assign(np.full(18, wild))
        assert not layer(x).numpy().any()
    for wild in (np.inf, np.nan):
        layer.offsets.bias.assign(np.full(18, wild))
        assert np.isnan(layer(x)).all()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_fold_into_gives_the_same_outputs(version):
    x = noise(4)(7, 6)
    block = ConvBlock(5, 3, negative_slope=0.1, deformable=version)
    folded = ConvBlock(5, 3, negative_slope=0.1, deformable=version, folded=True)
    block(x), folded(x)
    randomize(block)
    expected = block(x, training=False)
    block.fold_into(folded)
    np.testing.assert_allclose(folded(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: DeformableConv2D(4, 3, version="v3"), r"`version` must be one of \['v1', 'v2'\]\. Received: .*'v3'"),
        (lambda: DeformableConv2D(4, 2), "`kernel_size` must be odd. Received: kernel_size=2"),
        (lambda: ConvBlock(4, 3, strides=2, deformable="v1"), "for stride 1 .* Received: strides=2"),
    ],
)
def test_what_it_can_not_be(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
