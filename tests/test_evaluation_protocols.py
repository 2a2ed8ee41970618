"""Do all views of a photo speak of the same pixels, and does voting keep every face?"""

import numpy as np
import pytest
from evaluation_data import detect_bright, found

from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with, mirror, resize, vote


@pytest.fixture
def image():
    """A bright rectangle, left of the middle, in a dark image of 400 x 200."""
    image = np.zeros((200, 400, 3), np.uint8)
    image[60:120, 40:140] = 255
    return image


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_finds_the_same_box_and_landmarks(image, name):
    result = detect_with(PROTOCOLS[name], detect_bright, image)
    assert len(result.scores) == 1
    np.testing.assert_allclose(result.boxes, [[40, 60, 140, 120]], atol=1)
    expected = [[[40, 60], [140, 60], [90, 90], [40, 120], [140, 120]]]
    np.testing.assert_allclose(result.landmarks, expected, atol=1)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("original", [(200, 400)]),
        ("1600", [(1075, 2150)]),  # the long side is the limit
        ("vga", [(320, 640)]),
        ("multiscale", [(size, 2 * size) for size in (375, 600, 825, 1050, 1275) for _ in range(2)]),
    ],
)
def test_the_sizes_are_the_published_ones(image, name, shapes):
    assert [view.shape[:2] for view in PROTOCOLS[name].views(image)] == shapes
    assert PROTOCOLS[name].num_views == len(shapes)


def test_a_square_photo_reaches_the_short_side():
    assert resize(np.zeros((80, 100, 3), np.uint8), 1600, 2150).shape == (1600, 2000, 3)
    assert resize(np.zeros((1, 900, 3), np.uint8), None, 640).shape == (1, 640, 3)


def test_mirroring_twice_changes_nothing():
    rng = np.random.default_rng(0)
    before = found([[1, 2, 3, 4], [5, 6, 9, 8]], [0.9, 0.8], rng.random((2, 5, 2)))
    once, twice = mirror(before, 10), mirror(mirror(before, 10), 10)
    np.testing.assert_allclose(once.boxes[0], [7, 2, 9, 4])
    assert once.landmarks[0, 0, 0] == 10 - before.landmarks[0, 1, 0]  # the right eye is now the left
    np.testing.assert_allclose(twice.boxes, before.boxes)
    np.testing.assert_allclose(twice.landmarks, before.landmarks)


def test_voting_averages_by_score_and_keeps_the_best_score():
    voted = vote(found([[0, 0, 10, 10], [2, 0, 12, 10]], [0.6, 0.2]))
    np.testing.assert_allclose(voted.boxes, [[0.5, 0, 10.5, 10]])
    assert voted.scores.tolist() == [0.6]


def test_an_isolated_box_is_kept_with_its_landmarks():
    points = np.arange(20.0).reshape(2, 5, 2)
    voted = vote(found([[0, 0, 10, 10], [50, 50, 60, 60]], [0.3, 0.9], points))
    np.testing.assert_array_equal(voted.boxes, [[50, 50, 60, 60], [0, 0, 10, 10]])
    np.testing.assert_array_equal(voted.landmarks, points[::-1])


def test_voting_survives_zero_scores_zero_areas_and_nothing():
    voted = vote(found([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 4, 4]], [0, 0, 0]))
    assert np.isfinite(voted.boxes).all()
    assert len(voted.scores) == 3  # boxes without area overlap nothing
    assert vote(found([], [], np.zeros((0, 5, 2)))).landmarks.shape == (0, 5, 2)
    with pytest.raises(ValueError, match="iou_threshold"):
        vote(found([], []), iou_threshold=0)


def test_voting_returns_at_most_what_is_asked():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(9)]
    assert vote(found(boxes, np.arange(9) / 9), max_detections=4).scores.tolist() == [8 / 9, 7 / 9, 6 / 9, 5 / 9]
