"""Which parts of a photo are enlarged, where they lie on their canvas, and which faces of both passes stay."""

import numpy as np
import pytest
from PIL import Image

import retinaface_tf
from retinaface_tf.annotations.read import find_photos
from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.geometry.overlap import pairwise_iou
from retinaface_tf.image.loading import load_image
from retinaface_tf.inference.zoom import GAP, STEP, find_parts, zoom, zoom_scale, zoom_views

FILL = (123, 117, 104)


def faces(*boxes_and_scores):
    boxes = np.array([box for box, _ in boxes_and_scores], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in boxes_and_scores], np.float32)
    return {"boxes": boxes, "scores": scores, "landmarks": np.repeat(boxes.reshape(-1, 2, 2)[:, :1], 5, axis=1)}


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (480, 640, 2),
        (1, 1, 2),
        (768, 500, 2),
        (1024, 700, 1.5),
        (900, 1280, 1.2),
        (900, 1500, None),
        (4000, 3000, None),
    ],
)
def test_a_photo_is_enlarged_to_1536_pixels_but_at_most_twice(height, width, scale):
    assert zoom_scale(height, width) == scale


@pytest.mark.parametrize(
    ("hints", "parts"),
    [
        (faces(), []),
        (faces(([100, 100, 110, 112], 0.5)), [[80, 80, 136, 136]]),  # 20 pixels around it, to multiples of 8
        (faces(([100, 100, 110, 112], 0.19)), []),
        (faces(([100, 100, 110, 112], 0.95)), []),  # certain
        (faces(([100, 100, 165, 165], 0.5)), []),  # large
        (faces(([2, 3, 12, 13], 0.5)), [[0, 0, 32, 40]]),
        (faces(([300, 180, 310, 190], 0.5)), [[280, 160, 320, 200]]),
        (faces(([100, 100, 110, 112], 0.5), ([150, 100, 160, 110], 0.3)), [[80, 80, 184, 136]]),
        # The first part lies beside the other two, but in the rectangle around both.
        (
            faces(([85, 5, 93, 13], 0.5), ([20, 20, 30, 30], 0.5), ([60, 60, 70, 70], 0.5)),
            [[0, 0, 120, 96]],
        ),
        (faces(([40, 40, 50, 50], 0.5), ([200, 120, 210, 130], 0.5)), [[16, 16, 72, 72], [176, 96, 232, 152]]),
    ],
)
def test_parts_are_around_small_uncertain_faces(hints, parts):
    assert sorted(find_parts(hints, 200, 320).tolist()) == parts


def test_parts_never_overlap_and_hold_every_uncertain_face():
    random = np.random.default_rng(0)
    for count in (5, 30, 200):
        corner = random.uniform(0, [1000, 700], (count, 2))
        hints = faces(*((np.append(low, low + random.uniform(3, 60)), 0.5) for low in corner))
        parts = find_parts(hints, 768, 1024)
        low = np.maximum(parts[:, None, :2], parts[None, :, :2])
        high = np.minimum(parts[:, None, 2:], parts[None, :, 2:])
        common = np.maximum(high - low, 0).prod(axis=-1)
        assert (common[~np.eye(len(parts), dtype=bool)] == 0).all()
        boxes = np.clip(hints["boxes"], 0, [1024, 768, 1024, 768])[:, None]
        assert ((boxes[..., :2] >= parts[:, :2]) & (boxes[..., 2:] <= parts[:, 2:])).all(axis=-1).any(axis=1).all()


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_point_of_the_photo_is_found_again_on_the_canvas(count):
    random = np.random.default_rng(count)
    image = np.zeros((480, 640, 3), np.uint8)
    corners = 8 * np.stack(np.divmod(random.permutation(35)[: min(count, 35)], 7), axis=1)[:, ::-1] * [10, 10]
    parts = np.concatenate([corners, corners + 8 * random.integers(3, 9, corners.shape)], axis=1)
    for left, top, right, bottom in parts:
        image[(top + bottom) // 2 - 4 : (top + bottom) // 2 + 4, (left + right) // 2 - 4 : (left + right) // 2 + 4] = (
            255
        )
    views = zoom_views(image, parts, 1.5, FILL)
    assert len(views) == len(parts)
    seen = np.zeros(views[0].canvas.shape[:2], int)
    for view in views:
        left, top, right, bottom = view.window.astype(int)
        seen[top : bottom + GAP, left : right + GAP] += 1
        rows, columns = np.nonzero(view.canvas[top:bottom, left:right, 0] > 127)
        center = np.array([columns.mean() + 0.5 + left, rows.mean() + 0.5 + top], np.float32)
        part = view.restore(view.window.reshape(2, 2))
        np.testing.assert_allclose(view.restore(center), part.mean(axis=0), atol=0.5)
        assert part.reshape(4).round().astype(int).tolist() in parts.tolist()
    assert seen.max() == 1, "parts lie on each other"
    outside = views[0].canvas[seen == 0]
    assert (outside == FILL).all()


def test_the_canvas_is_as_large_as_needed():
    image = np.zeros((480, 640, 3), np.uint8)
    for count in (1, 4, 30):
        parts = np.array([[i % 6 * 80, i // 6 * 80, i % 6 * 80 + 64, i // 6 * 80 + 64] for i in range(count)])
        height, width, _ = zoom_views(image, parts, 2.0, FILL)[0].canvas.shape
        assert count * 128**2 <= height * width <= 1.2 * count * 128**2
        assert height % STEP == width % STEP == 0


def zoomed(first, on_canvas, hints=None, shape=(200, 320, 3)):
    """The result of `zoom`, and the canvases that were run."""
    canvases = []

    def run(boxes):
        canvases.extend(box.canvas for box in boxes)
        return [on_canvas]

    image = np.zeros(shape, np.uint8)
    return zoom(run, image, first, first if hints is None else hints, FILL, 0.4), canvases


def test_a_face_of_the_enlarged_part_replaces_that_of_the_first_pass():
    first = faces(([100, 100, 110, 112], 0.5))  # its part begins at 80, 80
    result, canvases = zoomed(first, faces(([40, 40, 62, 66], 0.9)))
    assert [canvas.shape for canvas in canvases] == [(128, 128, 3)]  # 112, in steps of 32
    np.testing.assert_allclose(result["boxes"], [[100, 100, 111, 113]], atol=1e-4)
    np.testing.assert_allclose(result["landmarks"], np.full((1, 5, 2), 100), atol=1e-4)
    assert result["scores"].tolist() == [np.float32(0.9)]


def test_an_uncertain_face_that_the_enlarged_part_does_not_show_goes():
    assert len(zoomed(faces(([100, 100, 110, 112], 0.5)), faces())[0]["scores"]) == 0


@pytest.mark.parametrize(
    "on_canvas",
    [
        ([1, 40, 30, 60], 0.9),  # at the left edge of the part: it may be cut
        ([40, 100, 60, 112], 0.9),
        ([118, 40, 124, 50], 0.9),  # between the parts
        ([0, 0, 111, 111], 0.9),  # cut, too
    ],
)
def test_faces_that_are_cut_or_lie_between_the_parts_are_left_out(on_canvas):
    assert len(zoomed(faces(([100, 100, 110, 112], 0.5)), faces(on_canvas))[0]["scores"]) == 0


def test_at_an_edge_of_the_photo_nothing_is_cut():
    result, _ = zoomed(faces(([0, 100, 10, 112], 0.5)), faces(([0, 40, 20, 64], 0.9)))
    np.testing.assert_allclose(result["boxes"], [[0, 100, 10, 112]], atol=1e-4)


def test_a_face_belongs_to_the_part_that_it_lies_on():
    hints = faces(([310, 80, 320, 120], 0.5), ([100, 100, 110, 112], 0.5))  # one at the right edge of the photo
    views = zoom_views(np.zeros((200, 320, 3), np.uint8), find_parts(hints, 200, 320), 2.0, FILL)
    assert views[0].window[2] < views[1].window[0], "the part from the edge is to the left of the other"
    result, _ = zoomed(hints, faces((np.add(np.tile(views[1].window[:2], 2), [20, 20, 40, 44]), 0.9)))
    np.testing.assert_allclose(result["boxes"], [[90, 90, 100, 102]], atol=1e-4)


def test_other_faces_stay_as_they_are():
    certain, large, outside = ([100, 100, 110, 112], 0.99), ([60, 60, 160, 160], 0.9), ([250, 20, 262, 32], 0.97)
    uncertain = ([90, 120, 98, 128], 0.6)
    result, _ = zoomed(faces(certain, outside, large, uncertain), faces())
    assert result["boxes"].tolist() == [list(certain[0]), list(outside[0]), list(large[0])]


def test_a_certain_face_in_a_part_gets_the_box_of_the_enlarged_part():
    first = faces(([100, 125, 110, 137], 0.99), ([100, 140, 108, 148], 0.6))  # the part begins at 80, 120
    result, _ = zoomed(first, faces(([40, 10, 62, 36], 0.95)))
    np.testing.assert_allclose(result["boxes"], [[100, 125, 111, 138]], atol=1e-4)


def test_the_higher_score_of_two_passes_stays():
    large = ([90, 90, 160, 150], 0.8)  # not replaced: too large
    hint = faces(([100, 100, 110, 112], 0.3))
    part = find_parts(hint, 200, 320)[0]
    for score in (0.9, 0.7):
        on_canvas = faces((((np.array([98, 98, 134, 134]) - np.tile(part[:2], 2)) * 2), score))
        result, _ = zoomed(faces(([96, 96, 150, 150], 0.8)), on_canvas, hint)
        assert len(result["scores"]) == 1
        assert result["scores"][0] == np.float32(max(0.8, score))
    assert zoomed(faces(large), faces(), faces())[0]["boxes"].tolist() == [list(large[0])]


def test_nothing_runs_where_nothing_is_uncertain():
    first = faces(([100, 100, 110, 112], 0.99))
    result, canvases = zoomed(first, faces())
    assert result is first
    assert canvases == []
    assert zoomed(faces(([100, 100, 110, 112], 0.5)), faces(), shape=(200, 1500, 3))[1] == []  # large enough


@pytest.fixture(scope="module")
def crowd():
    """A photo of 640x480 with 48 small faces: the bundled one, shrunk more and more."""
    face = Image.fromarray(load_image("retinaface_tf/samples/astronaut.jpg")).crop((130, 10, 330, 210))
    photo = Image.new("RGB", (640, 480), FILL)
    for number in range(48):
        side = 16 + number // 2
        photo.paste(face.resize((side, side)), (number % 8 * 80 + 20, number // 8 * 80 + 20))
    return np.asarray(photo)


@pytest.mark.parametrize("runtime", ["litert", "keras"])
def test_more_small_faces_are_found(crowd, runtime):
    detector = retinaface_tf.load("mobilenet025_crowd", runtime=runtime)
    once, both = (detector.detect(crowd, close_ups=passes) for passes in (False, True))
    assert len(both) > len(once) + 5
    centers = (both.boxes[:, :2] + both.boxes[:, 2:]) / 2
    cells = {tuple(cell) for cell in (centers // 80).astype(int).tolist()}
    assert len(cells) == len(both), "each face once, in its own cell"


def test_runtimes_find_the_same_faces(crowd):
    detectors = [retinaface_tf.load("mobilenet025_wider", runtime=name) for name in ("keras", "litert")]
    keras, litert = (detector.detect(crowd) for detector in detectors)
    assert len(keras) == len(litert)
    np.testing.assert_allclose(keras.boxes, litert.boxes, atol=0.05)
    np.testing.assert_allclose(keras.scores, litert.scores, atol=1e-3)
    np.testing.assert_allclose(keras.landmarks, litert.landmarks, atol=0.05)


def test_the_best_faces_do_not_depend_on_how_many_are_wanted(crowd):
    detector = retinaface_tf.load("mobilenet025_crowd")
    every = detector.detect(crowd)
    for most in (1, 5, 20):
        some = detector.detect(crowd, max_detections=most)
        np.testing.assert_array_equal(some.boxes, every.boxes[:most])


def test_a_photo_of_a_list_has_the_faces_that_it_has_alone(crowd):
    detector = retinaface_tf.load("mobilenet025_crowd")
    photos = [crowd, crowd[:, ::-1], crowd[:300], crowd]
    for faces_of_one, photo in zip(detector.detect(photos), photos, strict=True):
        np.testing.assert_array_equal(faces_of_one.boxes, detector.detect(photo).boxes)


def test_photos_of_640_pixels_have_a_quarter_more_true_faces(development_data):
    truth = read_wider_ground_truth(development_data / "wider_ground_truth")
    photos = find_photos(development_data / "wider_val_samples", truth)
    truth, detector = truth.only(photos), retinaface_tf.load("mobilenet025_wider")
    found = dict.fromkeys((False, True), 0)
    for number, name in enumerate(truth.names):
        photo = Image.open(photos[name]).convert("RGB")
        photo.thumbnail((640, 640))
        labeled = truth.boxes[truth.image == number] * (photo.width / Image.open(photos[name]).width)
        for passes in found:
            boxes = detector.detect(photo, resize=None, close_ups=passes).boxes
            found[passes] += int((pairwise_iou(labeled, boxes).max(axis=1, initial=0) >= 0.5).sum())
    assert found[True] > 1.25 * found[False]


def test_a_file_of_one_size_does_not_enlarge(crowd, tmp_path):
    path = tmp_path / "fixed.tflite"
    retinaface_tf.export("mobilenet025_crowd", path, format="tflite", size=(480, 640))
    once, both = (retinaface_tf.load(path).detect(crowd, close_ups=passes) for passes in (False, True))
    np.testing.assert_array_equal(once.boxes, both.boxes)
