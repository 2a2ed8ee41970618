"""Is what was found drawn where it is, and what was to be hidden really hidden?"""

import numpy as np
import pytest

from retinaface_tf.image.drawing import BOX_COLOR, LANDMARK_COLORS, blur, draw
from retinaface_tf.inference.detections import Detections

POINTS = [[40, 40], [60, 40], [50, 50], [42, 60], [58, 60]]


def one_face(box, size=100):
    return Detections(
        boxes=np.array([box], np.float32),
        scores=np.array([0.9], np.float32),
        landmarks=np.array([POINTS], np.float32),
        width=size,
        height=size,
    )


def test_box_and_landmarks_are_drawn_where_they_are():
    image = np.zeros((100, 100, 3), np.uint8)
    picture = np.asarray(draw(image, one_face([30, 30, 70, 80])))
    assert tuple(picture[80, 50]) == BOX_COLOR
    assert tuple(picture[60, 30]) == BOX_COLOR
    for (x, y), color in zip(POINTS, LANDMARK_COLORS, strict=True):
        assert tuple(picture[y, x]) == color
    assert not image.any()  # the photo itself is left alone


def test_blur_leaves_no_detail_of_the_face_and_all_of_the_rest():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (100, 100, 3), np.uint8)
    picture = np.asarray(blur(image, one_face([30, 30, 70, 70])))
    face = np.s_[36:64, 36:64]
    # White noise has a difference of about 85 between neighbors; what is left has a few.
    assert np.abs(np.diff(image[face].astype(int), axis=1)).mean() > 70
    assert np.abs(np.diff(picture[face].astype(int), axis=1)).mean() < 5
    outside = np.ones((100, 100), bool)
    outside[23:78, 23:78] = False
    np.testing.assert_array_equal(picture[outside], image[outside])


def test_blur_keeps_nothing_but_the_mean_of_six_cells_across():
    """Turning the pixels round inside each cell of 10 x 10 changes nothing in the result: they are gone for good."""
    image = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    turned = image.copy()
    for y in range(20, 80, 10):
        for x in range(20, 80, 10):
            turned[y : y + 10, x : x + 10] = image[y : y + 10, x : x + 10][::-1, ::-1]
    box = [27, 27, 73, 73]  # grown by 15 % on each side it is 20 to 80
    hidden, also = (np.asarray(blur(picture, one_face(box))).astype(int) for picture in (image, turned))
    inside = np.s_[35:65, 35:65]
    assert np.abs(image[inside].astype(int) - turned[inside]).mean() > 50
    assert np.abs(hidden[inside] - also[inside]).max() <= 1


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 100, 100], [99.5, 99.5, 100, 100]])
@pytest.mark.parametrize("hide_or_draw", [blur, draw])
def test_extreme_boxes(hide_or_draw, box):
    assert hide_or_draw(np.zeros((100, 100, 3), np.uint8), one_face(box)).size == (100, 100)
