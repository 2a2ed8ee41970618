"""Detections in other libraries' forms: the numbers, the order of the sides, and the libraries' own readers."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from retinaface_tf.image.align import crop_box, crop_level
from retinaface_tf.inference.detections import Detections
from retinaface_tf.integrations import interop

FIVE = [[14, 24], [26, 24], [20, 30], [15, 36], [25, 36]]


@pytest.fixture
def faces():
    """Two faces in a photo of 200 x 100."""
    return Detections(
        boxes=np.array([[10, 20, 30, 44], [100, 0, 150, 60]], np.float32),
        scores=np.array([0.75, 0.5], np.float32),
        landmarks=np.array([FIVE, [[110, 20], [140, 20], [125, 35], [112, -5], [138, 50]]], np.float32),
        width=200,
        height=100,
    )


@pytest.fixture
def none():
    return Detections(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros((0, 5, 2), "f4"), 200, 100)


def test_rows_and_back(faces, none):
    rows = interop.to_numpy(faces)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], [10, 20, 30, 44, 0.75, 14, 24, 26, 24, 20, 30, 15, 36, 25, 36])
    back = interop.from_numpy(rows[::-1], 200, 100)  # the surest comes first again
    for name in ("boxes", "scores", "landmarks"):
        np.testing.assert_array_equal(getattr(back, name), getattr(faces, name))
    assert interop.to_numpy(none).shape == (0, 15)
    assert interop.from_numpy(np.zeros((0, 15)), 200, 100).landmarks.shape == (0, 5, 2)
    with pytest.raises(ValueError, match=r"`rows` must be \[N, 15\].*Received: shape \[2, 5\]"):
        interop.from_numpy(rows[:, :5], 200, 100)


def test_coco_is_left_top_width_height(faces, none):
    whole = interop.to_coco({"a.jpg": none, "b.jpg": faces})
    assert [(one["id"], one["file_name"], one["width"]) for one in whole["images"]] == [
        (1, "a.jpg", 200),
        (2, "b.jpg", 200),
    ]
    first, second = json.loads(json.dumps(whole))["annotations"]
    assert (first["bbox"], first["area"], first["score"]) == ([10, 20, 20, 24], 480, 0.75)
    assert first["keypoints"][:6] == [14, 24, 2, 26, 24, 2]
    assert (second["id"], second["image_id"], second["num_keypoints"]) == (2, 2, 5)


def test_coco_is_read_by_our_converter_and_by_pycocotools(faces, tmp_path):
    from pycocotools.coco import COCO

    from retinaface_tf.annotations.read import read_annotations

    path = tmp_path / "faces.json"
    path.write_text(json.dumps(interop.to_coco({"b.jpg": faces})))
    record = read_annotations(path)
    np.testing.assert_allclose(record.boxes, faces.boxes)
    np.testing.assert_allclose(record.landmarks, faces.landmarks)
    truth = COCO(path)
    results = truth.loadRes(json.loads(path.read_text())["annotations"])
    assert [one["score"] for one in results.loadAnns(results.getAnnIds())] == [0.75, 0.5]


def test_fiftyone_counts_in_parts_of_the_sides(faces, none):
    forms = interop.to_fiftyone(faces)
    face, points = forms["faces"]["detections"][0], forms["landmarks"]["keypoints"][0]
    np.testing.assert_allclose(face["bounding_box"], [0.05, 0.2, 0.1, 0.24], rtol=1e-6)
    np.testing.assert_allclose(points["points"][0], [0.07, 0.24], rtol=1e-6)
    assert (face["_cls"], face["label"], face["confidence"], points["_cls"]) == ("Detection", "face", 0.75, "Keypoint")
    assert interop.to_fiftyone(none)["faces"] == {"_cls": "Detections", "detections": []}
    json.dumps(forms)


def test_supervision_takes_them_and_draws_them(faces, none):
    sv = pytest.importorskip("supervision", reason="needs the extra `interop`")
    found = interop.to_supervision(faces)
    np.testing.assert_array_equal(found.xyxy, faces.boxes)
    np.testing.assert_array_equal(found.box_area, [480, 3000])
    kept = found[found.confidence > 0.6]  # its own indexing takes the landmarks along
    assert kept.data["class_name"].tolist() == ["face"]
    np.testing.assert_array_equal(kept.data["landmarks"], faces.landmarks[:1])
    scene = sv.BoxAnnotator(thickness=1).annotate(np.zeros((100, 200, 3), np.uint8), found)
    assert scene[20, 10].any() and not scene[50, 90].any()
    points = interop.to_supervision_keypoints(faces)
    np.testing.assert_array_equal(points.xy, faces.landmarks)
    assert sv.VertexAnnotator(radius=2).annotate(np.zeros((100, 200, 3), np.uint8), points)[24, 14].any()
    assert (len(interop.to_supervision(none)), len(interop.to_supervision_keypoints(none))) == (0, 0)


@pytest.fixture
def meshed(faces):
    """The same faces with two vertices each."""
    mesh = [[[20, 30, -4], [24, 10, 2]], [[100, 50, 0], [150, 60, 1]]]
    return replace(faces, vertices=np.array(mesh, np.float32))


def test_fiftyone_takes_a_mesh_along(faces, meshed):
    points = interop.to_fiftyone(meshed)["vertices"]["keypoints"][0]
    np.testing.assert_allclose(points["points"], [[0.1, 0.3], [0.12, 0.1]], rtol=1e-6)
    assert points["confidence"] == [0.75, 0.75]
    assert "vertices" not in interop.to_fiftyone(faces)


def test_supervision_takes_a_mesh_along(faces, meshed):
    pytest.importorskip("supervision", reason="needs the extra `interop`")
    found = interop.to_supervision(meshed)
    np.testing.assert_array_equal(found[found.confidence < 0.6].data["vertices"], meshed.vertices[1:])
    assert "vertices" not in interop.to_supervision(faces).data


def test_without_supervision_one_line_says_what_to_install(faces, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"to_supervision needs supervision .*pip install 'retinaface-tf\[interop\]'"):
        interop.to_supervision(faces)


def test_deepface_has_the_persons_own_sides(faces):
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:44, 10:30] = (250, 100, 50)
    first, second = interop.to_deepface(image, faces, align=False)
    assert {name: first["facial_area"][name] for name in "xywh"} == {"x": 10, "y": 20, "w": 20, "h": 24}
    assert first["facial_area"]["right_eye"] == (14, 24)  # the person's right is on the left of the picture
    assert first["facial_area"]["mouth_left"] == (25, 36)
    assert second["facial_area"]["mouth_right"] is None  # above the photo
    assert (first["face"].shape, first["confidence"]) == ((24, 20, 3), 0.75)
    np.testing.assert_allclose(first["face"][5, 5], np.array([250, 100, 50]) / 255)
    assert (
        interop.to_deepface(image, faces, align=False, normalize_face=False, color_face="bgr")[0]["face"][5, 5, 0] == 50
    )
    gray = interop.to_deepface(image, faces, align=False, color_face="gray", normalize_face=False)[0]["face"]
    assert gray.shape == (24, 20) and gray[5, 5] == 139  # 0.299 * 250 + 0.587 * 100 + 0.114 * 50 = 139.15
    wide = interop.to_deepface(image, faces, align=False, expand_percentage=50)[0]["facial_area"]
    assert (wide["x"], wide["y"], wide["w"], wide["h"]) == (5, 14, 30, 36)
    with pytest.raises(ValueError, match="`color_face` must be"):
        interop.to_deepface(image, faces, color_face="hsv")
    with pytest.raises(ValueError, match="`expand_percentage` must be at least 0"):
        interop.to_deepface(image, faces, expand_percentage=-1)


def face_at(box, eyes, width=40, height=30):
    landmarks = np.array([[*eyes, [0, 0], [0, 0], [0, 0]]], np.float32)
    return Detections(np.array([box], np.float32), np.ones(1, np.float32), landmarks, width, height)


def test_deepface_counts_pixels_in_its_own_way():
    """Figures of deepface 0.0.103, given these boxes and eyes by a detector of its own."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[...] = np.arange(40)[:, None] + 100
    level = [[30, 10], [36, 10]]
    for box, percent, align, area, shape in (
        ([28.9, 5.2, 40, 17.9], 0, True, (28, 5, 11, 12), (12, 12)),  # w is one less at the right edge
        ([28, 5, 39, 18], 10, False, (28, 5, 11, 14), (14, 12)),  # 11 + int(1.1); moved to the left by int(0.5)
        ([28, 5, 39, 18], 50, False, (26, 2, 13, 19), (19, 14)),  # cut at 40
        ([28, 5, 39, 18], 50, True, (26, 2, 13, 19), (19, 16)),  # black beyond it, if the face is turned
        ([1, 1, 21, 11], 50, True, (0, 0, 30, 15), (15, 30)),  # begins at -4, -1
    ):
        options = {"align": align, "expand_percentage": percent, "normalize_face": False}
        (found,) = interop.to_deepface(image, face_at(box, level), **options)
        assert tuple(found["facial_area"][name] for name in "xywh") == area
        assert found["face"].shape == (*shape, 3)
    (found,) = interop.to_deepface(image, face_at([28, 5, 39, 18], level), expand_percentage=50, normalize_face=False)
    assert found["face"][0, :, 0].tolist() == [*range(126, 140), 0, 0]


def test_deepface_turns_around_a_whole_pixel_and_takes_eyes_without_their_fractions():
    image = np.zeros((30, 40, 3), np.uint8)
    image[...] = np.arange(40)[:, None] + 100
    (found,) = interop.to_deepface(image, face_at([10, 5, 14, 9], [[13, 6], [11, 6]]), normalize_face=False)
    assert found["face"][1, :, 0].tolist() == [114, 113, 112, 111]  # upside down: around the pixel at 12
    (found,) = interop.to_deepface(image, face_at([10, 5, 20, 15], [[12.9, 7], [17.1, 7.9]]), normalize_face=False)
    np.testing.assert_array_equal(found["face"], image[5:15, 10:20])


def test_a_level_crop_has_the_eyes_in_one_row():
    image = np.zeros((100, 100, 3), np.uint8)
    eyes = np.array([[40.5, 60.5], [60.5, 40.5]])  # 45 degrees, around (50.5, 50.5)
    for x, y in eyes.astype(int):
        image[y, x] = 255
    landmarks = np.concatenate([eyes, np.zeros((3, 2))])
    crop = crop_level(image, [20, 20, 81, 81], landmarks)
    assert crop.shape == (61, 61, 3)
    (left, right) = sorted(np.argwhere(crop[..., 0] > 60).tolist(), key=lambda at: at[1])
    assert left == [30, 16] and right == [30, 44]  # 14.1 pixels to either side of the middle
    np.testing.assert_array_equal(
        crop_level(image, [20, 30, 81, 90], np.array(FIVE)), crop_box(image, [20, 30, 81, 90])
    )


def test_a_crop_is_never_empty():
    image = np.zeros((10, 10, 3), np.uint8)
    for box in ([3.2, 3.2, 3.4, 3.4], [10, 10, 10, 10], [-5, -5, -1, -1]):
        assert crop_box(image, box).shape == (1, 1, 3)


def test_a_photo_is_read_as_everywhere_else(faces):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full((100, 200, 3), 7, np.uint8)).save(buffer, "PNG")
    assert interop.to_deepface(buffer.getvalue(), faces, normalize_face=False)[0]["face"].max() == 7
