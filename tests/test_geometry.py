"""Boxes, anchors and their coding, in numbers that can be checked by eye."""

import keras
import numpy as np
import pytest

from retinaface_tf.geometry import boxes as box_ops
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks, encode_boxes, encode_landmarks
from retinaface_tf.network.heads import PredictionHead

PUBLIC = {"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}
PAPER = {f"P{i}": tuple(2**i * 4 * 2 ** (k / 3) for k in range(3)) for i in range(2, 7)}
VARIANCES = (0.1, 0.2)


def test_area_and_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [4, 4, 4, 9], [3, 3, 1, 1]], "float32")
    np.testing.assert_allclose(box_ops.area(boxes), [4, 4, 1, 0, 0])
    iou = box_ops.pairwise_iou(boxes[:2], boxes)
    np.testing.assert_allclose(iou, [[1, 1 / 3, 0, 0, 0], [1 / 3, 1, 0, 0, 0]], rtol=1e-6)
    assert box_ops.pairwise_iou(boxes, boxes[:0]).shape == (5, 0)
    empty = box_ops.pairwise_iou(boxes[3:4], boxes[3:4])
    np.testing.assert_array_equal(empty, [[0]])  # not 0 / 0


def test_clip():
    boxes = np.array([[-5, 2, 30, 40], [50, 50, 60, 60]], "float32")
    clipped = box_ops.clip(boxes, np.array([1, 0, 20, 10], "float32"))
    np.testing.assert_allclose(clipped, [[1, 2, 20, 10], [20, 10, 20, 10]])


@pytest.mark.parametrize(
    ("sizes", "height", "width", "count"),
    [
        (PUBLIC, 640, 640, 16_800),
        (PUBLIC, 840, 840, 29_126),
        (PAPER, 640, 640, 102_300),
        (PUBLIC, 1, 1, 6),
        ({"P4": (10, 20, 30), "P5": (40,)}, 33, 17, 3 * 3 * 2 + 2),
    ],
)
def test_count(sizes, height, width, count):
    generator = AnchorGenerator(sizes)
    assert generator.count(height, width) == count
    assert tuple(generator(height, width).shape) == (count, 4)


def test_papers_sizes_run_from_16_to_406():
    assert PAPER["P2"][0] == 16
    assert round(PAPER["P6"][-1]) == 406


def test_order_is_level_row_column_size_with_centers_at_half_strides():
    anchors = np.array(AnchorGenerator({"P3": (4, 8), "P4": (10,)})(16, 24))
    centers, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]
    assert centers[:8].tolist() == [[4, 4], [4, 4], [12, 4], [12, 4], [20, 4], [20, 4], [4, 12], [4, 12]]
    assert sides[:4].tolist() == [4, 8, 4, 8]
    assert centers[12:].tolist() == [[8, 8], [24, 8]]  # ceil(24 / 16) columns: the last lies at the edge
    assert sides[12:].tolist() == [10, 10]


def test_the_heads_answer_in_the_anchors_order():
    """A feature map with one warm cell: the answer that differs must be that cell's anchors."""
    height, width, stride = 24, 40, 8
    anchors = np.array(AnchorGenerator({"P3": (4, 8)})(height, width))
    head = PredictionHead(2, (1,))
    head.build((1, 3, 5, 1))
    head.convolution.kernel.assign(np.array([[[[1.0, 2.0]]]]))
    features = np.zeros((1, 3, 5, 1), "float32")
    features[0, 2, 3] = 1
    answers = np.array(head(features))[0, :, 0]
    np.testing.assert_allclose(anchors[answers == 1], [[3.5 * stride - 2, 2.5 * stride - 2, 3.5 * stride + 2, 22]])
    np.testing.assert_allclose(anchors[answers == 2], [[3.5 * stride - 4, 2.5 * stride - 4, 3.5 * stride + 4, 24]])


@pytest.mark.parametrize(
    "sizes",
    [{}, {"P3": ()}, {"P3": (0,)}, {"P3": (8,), "P5": (8,)}, {"P4": (8,), "P3": (8,)}, {"C3": (8,)}, {"P7": (8,)}],
)
def test_impossible_anchors_are_refused(sizes):
    with pytest.raises(ValueError, match="`anchors` must"):
        AnchorGenerator(sizes)


def test_decode_by_hand():
    anchors = np.array([[0, 0, 10, 20]], "float32")
    offsets = np.array([[1, -1, np.log(2) / 0.2, 0]], "float32")
    # The center moves from (5, 10) to (6, 8), the width doubles to 20.
    np.testing.assert_allclose(decode_boxes(offsets, anchors, VARIANCES), [[-4, -2, 16, 18]], atol=1e-5)
    landmarks = decode_landmarks(np.full((1, 5, 2), 2.0, "float32"), anchors, VARIANCES)
    np.testing.assert_allclose(landmarks, np.tile([[[7, 14]]], (1, 5, 1)), atol=1e-5)


def test_decode_is_the_inverse_of_encode():
    random = np.random.default_rng(0)
    anchors = np.array(AnchorGenerator(PUBLIC)(64, 64))
    low = random.uniform(0, 50, (len(anchors), 2))
    boxes = np.concatenate([low, low + random.uniform(1, 300, low.shape)], axis=1).astype("float32")
    landmarks = random.uniform(-50, 400, (len(anchors), 5, 2)).astype("float32")
    back = decode_boxes(encode_boxes(boxes, anchors, VARIANCES), anchors, VARIANCES)
    np.testing.assert_allclose(back, boxes, atol=2e-3)
    back = decode_landmarks(encode_landmarks(landmarks, anchors, VARIANCES), anchors, VARIANCES)
    np.testing.assert_allclose(back, landmarks, atol=2e-3)


def test_a_box_on_its_anchor_has_no_offset():
    anchors = np.array([[3, 4, 19, 20]], "float32")
    np.testing.assert_allclose(encode_boxes(anchors, anchors, VARIANCES), [[0, 0, 0, 0]], atol=1e-6)


def test_wild_numbers_stay_finite():
    anchors = np.array([[0, 0, 512, 512]], "float32")
    for wild in (1e4, -1e4, 1e30):
        assert np.isfinite(decode_boxes(np.full((1, 4), wild, "float32"), anchors, VARIANCES)).all()
    empty = np.array([[7, 7, 7, 7]], "float32")
    assert np.isfinite(keras.ops.convert_to_numpy(encode_boxes(empty, anchors, VARIANCES))).all()
