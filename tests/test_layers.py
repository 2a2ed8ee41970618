"""Every layer of the network: shapes, dtypes, configuration and serialization; then the arithmetic of each."""

import keras
import numpy as np
import pytest
from layer_checks import run_layer_checks

from retinaface_tf.network import feature_pyramid
from retinaface_tf.network.build import PixelNormalization
from retinaface_tf.network.context_module import ContextModule
from retinaface_tf.network.conv_block import ConvBlock
from retinaface_tf.network.feature_pyramid import FeaturePyramid
from retinaface_tf.network.heads import MergedHeads, PredictionHead, merged_weights


def noise(channels):
    return lambda height, width: np.random.default_rng(0).normal(size=(2, height, width, channels)).astype("float32")


def maps(height, width):
    """Feature maps "C2" to "C5" whose sides halve, rounding up."""
    sides = [(height, width)]
    for _ in range(3):
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    return {f"C{i}": noise(4 * i)(*side) for i, side in enumerate(sides, start=2)}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_conv_block(folded, depthwise, kernel_size):
    arguments = {
        "filters": None if depthwise else 5,
        "kernel_size": kernel_size,
        "strides": 2,
        "depthwise": depthwise,
        "negative_slope": 0.3,
        "folded": folded,
    }
    run_layer_checks(ConvBlock, arguments, noise(3))


def test_context_module():
    arguments = {"num_filters": 12, "negative_slope": 0.3, "folded": True, "deformable": "v2"}
    run_layer_checks(ContextModule, arguments, noise(8))


@pytest.mark.parametrize("levels", [("P3", "P4", "P5"), ("P2", "P3", "P4", "P5", "P6"), ("P5",)])
def test_feature_pyramid(levels):
    arguments = {"levels": levels, "num_filters": 8, "negative_slope": 0.3, "folded": True, "deformable": "v1"}
    run_layer_checks(FeaturePyramid, arguments, maps)


def test_prediction_head():
    run_layer_checks(PredictionHead, {"num_anchors": 3, "value_shape": (5, 2)}, noise(8), float32_output=True)


def test_merged_heads():
    run_layer_checks(MergedHeads, {"num_anchors": 3, "values": 16}, noise(8), float32_output=True)


def test_pixel_normalization():
    run_layer_checks(PixelNormalization, {"mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)}, noise(3))


def test_pixel_normalization_is_channel_by_channel():
    pixels = np.array([[[[11, 22, 33], [1, 2, 3]]]], np.uint8)
    normalized = PixelNormalization((1, 2, 3), (10, 5, 2))(pixels)
    np.testing.assert_allclose(normalized, [[[[1, 4, 15], [0, 0, 0]]]], rtol=1e-6)


def pytorch_convolution(x, kernel, stride):
    """Cross-correlation with PyTorch's padding of kernel // 2 on every side, one number at a time."""
    size = kernel.shape[0]
    x = np.pad(x, [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)])
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    result = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            result[:, i, j] = np.einsum("nhwc,hwcf->nf", window, kernel)
    return result


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 1)])
@pytest.mark.parametrize(("kernel_size", "strides"), [(1, 1), (3, 1), (1, 2), (3, 2), (7, 2)])
def test_conv_block_pads_as_pytorch(size, kernel_size, strides):
    x = noise(3)(*size)
    block = ConvBlock(4, kernel_size, strides=strides)
    block.build(x.shape)
    expected = pytorch_convolution(x, block.convolution.kernel.numpy(), strides) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(block(x), expected, atol=2e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_depthwise_conv_block_pads_as_pytorch(size):
    x = noise(3)(*size)
    block = ConvBlock(None, 3, strides=2, depthwise=True)
    block.build(x.shape)
    full = np.zeros((3, 3, 3, 3))
    full[:, :, range(3), range(3)] = block.convolution.kernel.numpy()[..., 0]
    np.testing.assert_allclose(block(x), pytorch_convolution(x, full, 2) / np.sqrt(1 + 1e-5), atol=2e-5)


@pytest.mark.parametrize(("slope", "expected"), [(None, -2.0), (0.0, 0.0), (0.1, -0.2)])
def test_activations(slope, expected):
    block = ConvBlock(1, 1, negative_slope=slope, folded=True)
    x = np.full((1, 1, 1, 1), -2.0, "float32")
    block.build(x.shape)
    block.convolution.kernel.assign(np.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(block(x), [[[[expected]]]])


def randomize(layer):
    """Batch normalization as after training: nothing at 0 or 1 by chance."""
    random = np.random.default_rng(1)
    for variable in layer.variables:
        low, high = (0.5, 2.0) if variable.path.endswith(("gamma", "variance")) else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
def test_fold_into_gives_the_same_outputs(depthwise, strides):
    x = noise(4)(7, 6)
    filters = None if depthwise else 5
    block = ConvBlock(filters, 3, strides=strides, depthwise=depthwise, negative_slope=0.1)
    folded = ConvBlock(filters, 3, strides=strides, depthwise=depthwise, negative_slope=0.1, folded=True)
    expected, unfolded_yet = block(x), folded(x)
    randomize(block)
    expected = block(x, training=False)
    block.fold_into(folded)
    np.testing.assert_allclose(folded(x), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(unfolded_yet - expected).max() > 0.1


def test_up_sampling_is_pytorchs_nearest_to_the_finer_maps_size():
    """PyTorch takes pixel floor(i * coarse / fine); with coarse = ceil(fine / 2), at every size."""
    for fine in (*range(1, 40), 255, 256, 257, 1001, 2001):
        coarse = -(-fine // 2)
        row = np.arange(coarse, dtype="float32").reshape(1, coarse, 1, 1)
        resized = feature_pyramid._resize(row, (fine, 1))[0, :, 0, 0].numpy()
        np.testing.assert_array_equal(resized, [i * coarse // fine for i in range(fine)])


def test_a_pyramid_tells_fine_levels_what_coarse_ones_saw():
    pyramid = FeaturePyramid(("P3", "P4", "P5"), 4, 0.1)
    value = maps(16, 16)
    before = pyramid(value)
    value["C5"] = value["C5"] + 1
    after = pyramid(value)
    assert all(np.abs(after[level] - before[level]).max() > 1e-4 for level in ("P3", "P4", "P5"))
    value["C3"] = value["C3"] + 1
    last = pyramid(value)
    np.testing.assert_array_equal(last["P5"], after["P5"])  # and not the other way round


def test_context_windows_are_3_5_and_7_pixels_wide():
    context = ContextModule(8, 0.0)
    x = np.zeros((1, 9, 9, 4), "float32")
    context.build(x.shape)
    for variable in context.variables:
        if variable.path.endswith("kernel"):
            variable.assign(np.ones(variable.shape))
    quiet = context(x).numpy()
    x[0, 4, 4] = 1
    seen = np.abs(context(x).numpy() - quiet)[0, 4] > 0  # along the row through the pixel
    widths = seen.sum(axis=0)
    assert widths.tolist() == [3, 3, 3, 3, 5, 5, 7, 7]


def test_merged_heads_equal_separate_ones():
    x = noise(6)(4, 5)
    shapes = [(2,), (4,), (5, 2)]
    heads = [PredictionHead(3, shape) for shape in shapes]
    merged = MergedHeads(3, 16)
    parts = [keras.ops.reshape(head(x), (2, 60, -1)) for head in heads]
    merged(x)
    for head in heads:
        head.convolution.bias.assign(np.random.default_rng(2).normal(size=head.convolution.bias.shape))
    parts = [keras.ops.reshape(head(x), (2, 60, -1)) for head in heads]
    merged.convolution.set_weights(merged_weights(heads))
    np.testing.assert_allclose(merged(x), np.concatenate(parts, axis=-1), atol=1e-5)
