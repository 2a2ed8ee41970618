"""Every unfit photo or label has a name, and a fit one passes untouched."""

import io

import numpy as np
import pytest
import wider_tree
from PIL import Image, ImageOps

from retinaface_tf.annotations.annotations import FLAGS, annotate_photo
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.cleaning import PROBLEMS, PhotoError, PhotoFile, clean, read_photo

PHOTO = PhotoFile(b"", "jpeg", width=120, height=100, orientation=1, sha256="")


def kinds(problems):
    assert {problem.kind for problem in problems} <= set(PROBLEMS)
    return [problem.kind for problem in problems]


def test_a_fit_face_is_untouched():
    record = annotate_photo("a.jpg", [[0, 0, 120, 100], [5, 6, 5.5, 6.5]])
    kept, problems = clean(record, PHOTO)
    assert problems == []
    np.testing.assert_array_equal(kept.boxes, record.boxes)


@pytest.mark.parametrize(
    ("box", "kind", "result"),
    [
        ([10, 10, 10, 20], "no_area", []),
        ([10, 10, 20, 10], "no_area", []),
        ([20, 20, 10, 10], "no_area", []),
        ([0, 0, 0, 0], "no_area", []),
        ([130, 10, 140, 20], "outside", []),
        ([120, 10, 130, 20], "outside", []),
        ([-20, 10, 0, 20], "outside", []),
        ([10, -9, 20, -1], "outside", []),
        ([-5, 90, 30, 130], "clipped", [[0, 90, 30, 100]]),
    ],
)
def test_dirty_boxes(box, kind, result):
    kept, problems = clean(annotate_photo("a.jpg", [[1, 2, 3, 4], box, [5, 6, 7, 8]]), PHOTO)
    assert kinds(problems) == [kind]
    assert problems[0].detail.startswith("face 2: ")
    assert kept.boxes.tolist() == [[1, 2, 3, 4], *result, [5, 6, 7, 8]]


def test_invalid_faces_are_kept_unless_unwanted():
    flags = np.zeros((2, len(FLAGS)), int)
    flags[1, FLAGS.index("invalid")] = 1
    record = annotate_photo("a.jpg", [[1, 2, 3, 4], [5, 6, 7, 8]], flags=flags)
    assert clean(record, PHOTO)[0].num_faces == 2
    kept, problems = clean(record, PHOTO, drop_invalid=True)
    assert kept.boxes.tolist() == [[1, 2, 3, 4]] and kinds(problems) == ["invalid"]


def test_landmarks_far_off_are_not_trained_on():
    landmarks = np.full((1, 5, 2), 25.0)
    landmarks[0, 2] = 51, 25
    record = annotate_photo("a.jpg", [[20, 20, 30, 30]], landmarks, np.full((1, 5), VISIBLE))
    kept, problems = clean(record, PHOTO)
    assert kinds(problems) == ["landmark_far_off"] and (kept.visible == NOT_LABELED).all()
    landmarks[0, 2] = 33, 25
    assert clean(annotate_photo("a.jpg", [[20, 20, 30, 30]], landmarks, np.full((1, 5), VISIBLE)), PHOTO)[1] == []


def test_a_photo_of_another_size_is_left_out():
    record = annotate_photo("a.jpg", [[1, 2, 3, 4]], size=(100, 120))
    kept, problems = clean(record, PHOTO)
    assert kept is None and kinds(problems) == ["size_differs"]
    assert "100x120" in problems[0].detail and "120x100" in problems[0].detail


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_drawn_upright_come_to_stored_pixels(orientation):
    """Paint a box into stored pixels, look at it as Pillow turns it, label that, and come back."""
    stored = np.zeros((100, 120), np.uint8)
    stored[20:50, 10:70] = 255
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    rows, columns = np.nonzero(upright)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    size = upright.shape[::-1]
    left, right = [box[0] + 1, box[1] + 1], [box[2] - 1, box[1] + 1]  # the upper corners, as seen upright
    points = [left, right, left, left, right]
    states = [VISIBLE, OCCLUDED, VISIBLE, VISIBLE, NOT_LABELED]
    photo = PhotoFile(b"", "png", 120, 100, orientation, "")
    kept, problems = clean(annotate_photo("a.png", [box], [points], [states], size=size), photo, labels="upright")
    assert problems == []
    assert kept.boxes.tolist() == [[10, 20, 70, 50]]
    if orientation in (2, 4, 5, 7):  # a mirrored face has its other eye on the left
        assert kept.visible[0].tolist() == [OCCLUDED, VISIBLE, VISIBLE, NOT_LABELED, VISIBLE]
    else:
        assert kept.visible[0].tolist() == states
    labeled = kept.landmarks[0][kept.visible[0] != NOT_LABELED]
    corners = np.abs(labeled[:, None] - np.array([[10, 20], [70, 20], [70, 50], [10, 50]]))
    assert (corners.max(-1).min(-1) == 1).all()  # each is one pixel inside a corner of the stored box
    if orientation in (5, 6, 7, 8):
        assert "upright" in clean(annotate_photo("a.png", [box], size=size), photo)[1][0].detail


def test_normalized_labels_become_pixels():
    record = annotate_photo(
        "a.jpg", [[0.1, 0.2, 0.5, 1.0]], np.full((1, 5, 2), 0.3), np.full((1, 5), 1), normalized=True
    )
    kept, _ = clean(record, PHOTO)
    np.testing.assert_allclose(kept.boxes, [[12, 20, 60, 100]])
    np.testing.assert_allclose(kept.landmarks[0, 0], [36, 30])
    assert not kept.normalized


def test_photos_keep_their_bytes(tmp_path):
    wider_tree.make_photos(tmp_path, ["a.jpg"])
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.encoded == (tmp_path / "a.jpg").read_bytes()
    assert (photo.format, photo.width, photo.height, photo.orientation) == ("jpeg", 120, 100, 1)


def test_unfit_photos(tmp_path):
    wider_tree.make_photos(tmp_path, ["a.jpg", "a.tif"])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    expected = {"no.jpg": "missing_photo", "a.tif": "unsupported_format"}
    expected |= dict.fromkeys(("empty.jpg", "page.jpg", "folder.jpg"), "corrupt_photo")
    for name, kind in expected.items():
        with pytest.raises(PhotoError) as caught:
            read_photo(tmp_path / name)
        assert (caught.value.kind, "\n" in str(caught.value)) == (kind, False), name
