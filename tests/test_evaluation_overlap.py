"""Is intersection over union what a drawing on squared paper says?"""

import numpy as np
import pytest

from retinaface_tf.geometry.overlap import pairwise_iou


def test_every_pair_by_hand():
    boxes_a = [[0, 0, 2, 2], [5, 5, 6, 6]]
    boxes_b = [[1, 0, 3, 2], [0, 0, 2, 2], [2, 0, 4, 2]]
    np.testing.assert_allclose(pairwise_iou(boxes_a, boxes_b), [[1 / 3, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(pairwise_iou(boxes_a, boxes_b, plus_one=True)[0], [6 / 12, 1, 3 / 15])


@pytest.mark.filterwarnings("error")
def test_no_area_is_no_overlap_and_no_warning():
    point = [[3, 3, 3, 3]]
    assert pairwise_iou(point, point) == 0
    assert pairwise_iou(point, point, plus_one=True) == 1
    # WIDER FACE has a face of width -2.
    assert pairwise_iou([[10, 0, 8, 23]], [[0, 0, 20, 23]], plus_one=True) == 0


def test_no_boxes_give_an_empty_table():
    assert pairwise_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert pairwise_iou([], []).shape == (0, 0)


def test_one_box_alone_is_a_table_of_one():
    assert pairwise_iou([0, 0, 2, 2], [0, 0, 1, 2]).shape == (1, 1)
