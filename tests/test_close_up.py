"""When is a second look due, and which faces of both looks stay?"""

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.image.loading import load_image
from retinaface_tf.inference import close_up


def faces(*boxes_and_scores):
    boxes = np.array([box for box, _ in boxes_and_scores], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in boxes_and_scores], np.float32)
    return {"boxes": boxes, "scores": scores, "landmarks": np.repeat(boxes.reshape(-1, 2, 2)[:, :1], 5, axis=1)}


NONE = faces()


@pytest.mark.parametrize(
    ("found", "hints", "height", "width", "due"),
    [
        (NONE, NONE, 480, 640, False),
        (NONE, faces(([0, 0, 200, 200], 0.2)), 480, 640, True),  # nearly a face, and large
        (NONE, faces(([0, 0, 20, 20], 0.2)), 480, 640, False),  # nearly a face, but small
        (faces(([0, 0, 20, 20], 0.9)), faces(([0, 0, 200, 200], 0.2)), 480, 640, False),
        (faces(([0, 0, 20, 20], 0.9)), NONE, 705, 705, True),  # 704 = 1.375 x 512 is in reach
        (faces(([0, 0, 20, 20], 0.9)), NONE, 704, 4000, False),
        (faces(([0, 0, 20, 20], 0.9)), NONE, 4000, 500, False),  # a face is not 8 times as high as wide
    ],
)
def test_when_it_is_due(found, hints, height, width, due):
    assert close_up.is_due(found, hints, height, width, largest_anchor=512) is due


def test_close_up_view_restores_to_pixels_of_the_image():
    image = np.zeros((1200, 1600, 3), np.uint8)
    image[600:640, 400:440] = 255  # center at x 420, y 620
    look = close_up.close_up_view(image, (0, 0, 0))
    assert max(look.canvas.shape) == 200 + 2 * 50
    rows, columns = np.nonzero(look.canvas[..., 0] > 127)
    np.testing.assert_allclose(look.restore(np.array([columns.mean() + 0.5, rows.mean() + 0.5])), [420, 620], atol=4)


def merged(first, second):
    result = close_up.merge(first, second, largest_anchor=512, nms_threshold=0.4)
    assert (np.diff(result["scores"]) <= 0).all()
    assert len(result["boxes"]) == len(result["scores"]) == len(result["landmarks"])
    return result["boxes"].tolist()


HUGE = [0, 0, 800, 800]


def test_without_faces_the_second_look_is_taken_whole():
    assert merged(NONE, faces(([1, 1, 9, 9], 0.8))) == [[1, 1, 9, 9]]


def test_beyond_reach_the_second_look_replaces_the_first():
    assert merged(faces(([0, 0, 700, 600], 0.99)), faces((HUGE, 0.9))) == [HUGE]


def test_within_reach_the_first_look_stays():
    first, second = [0, 0, 600, 600], [5, 5, 610, 610]
    assert merged(faces((first, 0.6)), faces((second, 0.9))) == [first]


def test_small_faces_of_the_second_look_are_not_added():
    assert merged(faces(([0, 0, 50, 50], 0.9)), faces(([300, 300, 400, 400], 0.9))) == [[0, 0, 50, 50]]


def test_a_fragment_inside_a_close_up_goes():
    assert merged(faces(([300, 300, 400, 400], 0.8)), faces((HUGE, 0.9))) == [HUGE]


def test_a_close_up_removes_no_face_that_has_a_higher_score():
    inside = [300, 300, 400, 400]
    assert merged(faces((inside, 0.8)), faces((HUGE, 0.03))) == [inside, HUGE]


def test_a_face_inside_a_close_up_stays_where_both_looks_see_it():
    inside = [300, 300, 400, 400]
    second = faces((HUGE, 0.9), ([305, 300, 400, 400], 0.7))
    assert merged(faces((inside, 0.99)), second) == [inside, HUGE]


def test_a_face_beside_a_close_up_stays():
    beside = [900, 0, 1000, 100]
    assert merged(faces((beside, 0.8)), faces((HUGE, 0.9))) == [HUGE, beside]


@pytest.mark.parametrize("side", [224, 640, 960, 2048])
def test_a_face_that_fills_the_frame_is_found(side, bundled_model, sample_photo):
    face = Image.fromarray(load_image(sample_photo)).crop((178, 57, 273, 177))
    height = side
    width = round(side * 95 / 120)
    found = bundled_model.detect(np.asarray(face.resize((width, height))))
    assert len(found) == 1
    x1, y1, x2, y2 = found.boxes[0] / [width, height, width, height]
    assert max(x1, y1) < 0.15
    assert min(x2, y2) > 0.85


def test_close_ups_can_be_switched_off(bundled_model, sample_photo):
    face = Image.fromarray(load_image(sample_photo)).crop((178, 57, 273, 177)).resize((1616, 2048))
    sides = [
        (d.boxes[:, 2] - d.boxes[:, 0]).max(initial=0)
        for d in (
            bundled_model.detect(np.asarray(face), close_ups=True),
            bundled_model.detect(np.asarray(face), close_ups=False),
        )
    ]
    assert sides[0] > 1300
    assert sides[1] < 1300
