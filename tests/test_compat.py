"""Calls of other packages: their forms, their left and right, their order of channels, their sizes."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.compat import (
    FaceAnalysis,
    RetinaFace,
    bb6,
    from_insightface,
    from_retina_face,
    pictures,
    to_retina_face,
)
from retinaface_tf.image.loading import ImageError, load_image
from retinaface_tf.inference.detections import Detections


class Recorder:
    """A detector that finds the same two faces everywhere and keeps what it was asked."""

    def __init__(self):
        self.faces = Detections(
            boxes=np.array([[0, 0, 20, 30], [40.7, 30.2, 80.9, 70.6]], np.float32),
            scores=np.array([0.95, 0.92], np.float32),
            landmarks=np.arange(20, dtype=np.float32).reshape(2, 5, 2),
            width=120,
            height=100,
        )

    def detect(self, image, **options):
        self.image, self.options = image, options
        return self.faces


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def default_is_bundled(monkeypatch, bundled_model):
    monkeypatch.setattr(pictures, "load", lambda name: {"mobilenet025_wider": bundled_model}[name])
    pictures.default_detector.cache_clear()
    yield
    pictures.default_detector.cache_clear()


def test_retina_face_on_the_bundled_photo(default_is_bundled, sample_photo):
    answer = RetinaFace.detect_faces(str(sample_photo))
    assert list(answer) == ["face_1"]
    face = answer["face_1"]
    assert list(face) == ["score", "facial_area", "landmarks"]
    assert list(face["landmarks"]) == ["right_eye", "left_eye", "nose", "mouth_right", "mouth_left"]
    # Her right eye is on the left of the photo: marked by hand at (204, 103), the other at (247, 105).
    np.testing.assert_allclose(face["landmarks"]["right_eye"], [204, 103], atol=7)
    np.testing.assert_allclose(face["landmarks"]["left_eye"], [247, 105], atol=7)
    np.testing.assert_allclose(face["landmarks"]["mouth_left"], [245, 142], atol=7)
    np.testing.assert_allclose(face["facial_area"], [178, 60, 273, 178], atol=10)
    assert all(type(value) is int for value in face["facial_area"]) and face["score"] > 0.99
    assert json.loads(json.dumps(answer)) == answer


def test_arrays_are_blue_first_and_every_form_is_the_same(default_is_bundled, sample_photo):
    model = RetinaFace.build_model()
    assert model is RetinaFace.build_model()
    bgr = load_image(sample_photo)[..., ::-1]
    text = "data:image/jpeg;base64," + base64.b64encode(sample_photo.read_bytes()).decode()
    expected = RetinaFace.detect_faces(sample_photo, allow_upscaling=False)
    for form in (bgr, text):
        assert RetinaFace.detect_faces(form, allow_upscaling=False) == expected
    swapped = RetinaFace.detect_faces(bgr[..., ::-1], allow_upscaling=False, model=model)
    assert swapped["face_1"]["score"] != expected["face_1"]["score"]


def test_photos_are_seen_at_the_size_that_the_original_chooses(recorder):
    """It brings the short side to 1024, or the long one to 1980; without `allow_upscaling` it only shrinks."""

    def asked(height, width, **options):
        RetinaFace.detect_faces(np.zeros((height, width, 3), np.uint8), model=recorder, **options)
        return recorder.options["resize"]

    assert asked(100, 120) == (1024, 1980)
    assert asked(100, 120, allow_upscaling=False) == (100, 1980)
    assert asked(3000, 2000, allow_upscaling=False) == (1024, 1980)
    assert recorder.options["score_threshold"] == 0.9


def test_the_dictionary_numbers_faces_and_truncates_boxes(recorder):
    answer = RetinaFace.detect_faces(np.zeros((100, 120, 3), np.uint8), model=recorder)
    assert answer["face_2"]["facial_area"] == [40, 30, 80, 70]
    assert answer["face_2"]["landmarks"]["right_eye"] == [10, 11]
    whole = Detections(np.float32([[0, 0, 120, 100]]), np.ones(1, np.float32), np.zeros((1, 5, 2)), 120, 100)
    assert to_retina_face(whole)["face_1"]["facial_area"] == [0, 0, 119, 99]  # there, boxes end at the last pixel
    back = from_retina_face(dict(reversed(answer.items())), 120, 100)
    np.testing.assert_array_equal(back.landmarks, recorder.faces.landmarks)
    np.testing.assert_array_equal(back.scores, recorder.faces.scores)
    assert from_retina_face({}, 120, 100).boxes.shape == (0, 4)


def test_extracted_faces_are_red_first(recorder):
    image = np.zeros((100, 120, 3), np.uint8)
    image[..., 2] = 200  # red, in OpenCV's order
    first, second = RetinaFace.extract_faces(image, model=recorder, align=False)
    assert (first.shape, second.shape) == ((30, 20, 3), (40, 40, 3))
    assert first[0, 0].tolist() == [200, 0, 0]
    assert RetinaFace.extract_faces(image, model=recorder, align=False, expand_face_area=50)[1].shape == (60, 60, 3)
    (small, _) = RetinaFace.extract_faces(image, model=recorder, align=False, target_size=(60, 60))
    assert small.shape == (60, 60, 3) and small.dtype == np.float32  # 20 x 30 became 40 x 60
    assert small.max() == np.float32(200) / 255
    assert not small[:, :10].any() and small[:, 10:50].any()
    assert len(RetinaFace.extract_faces(image, model=recorder)) == 2


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ("missing.jpg", "missing.jpg: no such file"),
        ("https://example.org/a.jpg", "photos are not downloaded"),
        ("data:image/png;base64,!!", "expected base64 after the comma"),
        (np.zeros((4, 4), np.uint8), r"expected an array \[H, W, 3\], BGR. Received: shape \[4, 4\]"),
    ],
)
def test_what_is_no_photo_is_one_line(recorder, bad, line):
    with pytest.raises(ImageError, match=line):
        RetinaFace.detect_faces(bad, model=recorder)


def test_rows_of_bb6(default_is_bundled, bundled_model, sample_photo):
    rows = bb6.detect(load_image(sample_photo)[..., ::-1])
    plain = bundled_model.detect(sample_photo, score_threshold=0.02, resize=None, close_ups=False)
    np.testing.assert_array_equal(rows, bb6.to_rows(plain))
    assert rows.shape[1] == 15 and rows[0, 4] == rows[:, 4].max()
    assert len(bb6.detect(sample_photo, keep_top_k=1)) == 1


def test_insightface_calls(recorder):
    app = FaceAnalysis(name="buffalo_l", providers=["CPUExecutionProvider"], model=recorder)
    app.prepare(ctx_id=0, det_size=(640, 640))
    first, second = app.get(np.zeros((100, 120, 3), np.uint8))
    assert recorder.options == {"score_threshold": 0.5, "resize": (533, 640)}  # 100 x 120 fitted into 640 x 640
    assert first.det_score == first["det_score"] == pytest.approx(0.95)
    assert (first.bbox.shape, first.kps.shape, first.embedding) == ((4,), (5, 2), None)
    # The larger one is chosen, since it is near the middle; the surer one is in a corner.
    (chosen,) = app.get(np.zeros((100, 120, 3), np.uint8), max_num=1)
    np.testing.assert_array_equal(chosen.bbox, recorder.faces.boxes[1])
    back = from_insightface([second, first], 120, 100)
    np.testing.assert_array_equal(back.boxes, recorder.faces.boxes)
    np.testing.assert_array_equal(back.landmarks, recorder.faces.landmarks)
    assert from_insightface([], 120, 100).landmarks.shape == (0, 5, 2)
    with pytest.raises(ValueError, match="`faces` must have landmarks"):
        from_insightface([{"bbox": [0, 0, 1, 1], "det_score": 1.0, "kps": None}], 120, 100)
    app.prepare(0, det_size=None)
    app.get(Image.new("RGB", (8, 8)))
    assert recorder.options["resize"] is None


def test_insightfaces_first_example(bundled_model, sample_photo):
    image = np.asarray(Image.open(sample_photo))[..., ::-1]
    app = FaceAnalysis("buffalo_l", "~/.insightface", allowed_modules=["detection"], session_options=None)
    app.prepare(ctx_id=0, det_size=(640, 640))
    faces = app.get(image, max_num=1, det_metric="max")
    assert len(faces) == len(app.get(image, metric="default")) == 1
    drawn = app.draw_on(image, faces)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert (drawn != image).any(axis=2).sum() > 100
    rows, landmarks = app.models["detection"].detect(image, input_size=(320, 320), max_num=1, metric="default")
    assert (rows.shape, landmarks.shape) == ((1, 5), (1, 5, 2))
    np.testing.assert_allclose(rows[0, :4], faces[0].bbox, atol=8)  # at half the size
    assert (faces[0].embedding, faces[0].sex) == (None, None)
    with pytest.raises(TypeError, match="no argument 'maximum'"):
        app.get(image, maximum=1)


def test_base64_may_have_line_breaks_and_be_that_of_an_address(default_is_bundled, sample_photo):
    content = sample_photo.read_bytes()
    plain = base64.b64encode(content).decode()
    for text in (
        base64.encodebytes(content).decode(),
        base64.urlsafe_b64encode(content).decode(),
        plain.rstrip("="),
        plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    ):
        assert len(RetinaFace.detect_faces("data:image/jpeg;base64," + text)) == 1
    assert len(RetinaFace.detect_faces("DATA:image/JPEG;BASE64," + plain)) == 1


def test_a_number_below_0_leaves_no_face_out(bundled_model, sample_photo):
    app = FaceAnalysis()
    app.prepare(ctx_id=0)
    assert len(app.get(np.asarray(Image.open(sample_photo))[..., ::-1], max_num=-1)) == 1
