"""`Detections` as a sequence of faces, as a picture, as a file."""

import csv
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from retinaface_tf import Detections

FOUND = Detections(
    boxes=np.array([[1, 2, 31, 42], [5, 6, 7, 8]], np.float32),
    scores=np.array([0.9, 0.5], np.float32),
    landmarks=np.arange(20, dtype=np.float32).reshape(2, 5, 2),
    width=100,
    height=50,
)
EMPTY = Detections(np.zeros((0, 4), "f"), np.zeros(0, "f"), np.zeros((0, 5, 2), "f"), width=9, height=8)


def test_faces_by_index():
    assert len(FOUND) == 2
    assert FOUND[0].box.tolist() == [1, 2, 31, 42]
    assert FOUND[-1].score == 0.5 == FOUND[np.int64(1)].score
    assert FOUND[1].landmarks[2].tolist() == [14, 15]
    assert FOUND[0].vertices is None
    assert [face.score for face in FOUND] == pytest.approx([0.9, 0.5])
    assert list(EMPTY) == []
    with pytest.raises(IndexError):
        FOUND[2]


def test_several_faces_are_detections_again():
    for chosen in (slice(1, None), [1], FOUND.scores < 0.6):
        some = FOUND[chosen]
        assert isinstance(some, Detections)
        assert (some.boxes.tolist(), some.width, some.height) == ([[5, 6, 7, 8]], 100, 50)
    assert len(FOUND[[]]) == 0


def test_repr_says_what_is_there():
    assert repr(FOUND) == "Detections(2 faces in 100x50: 0.900 at [1, 2, 31, 42], 0.500 at [5, 6, 7, 8])"
    assert repr(EMPTY) == "Detections(0 faces in 9x8)"
    assert repr(FOUND[[0, 0, 0, 0]]).endswith(", ...)")
    assert repr(FOUND[0]) == "Face(score=0.900, box=[1.0, 2.0, 31.0, 42.0])"


def test_draw_needs_the_photo_where_it_came_as_pixels(tmp_path):
    photo = np.zeros((50, 100, 3), np.uint8)
    picture = FOUND.draw(tmp_path / "out.png", image=photo)
    assert picture.size == (100, 50)
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    assert drawn[2, 20].any() and not drawn[45, 90].any()  # the upper edge of the first box; nothing beside
    with pytest.raises(ValueError, match=r"`image` is needed, because"):
        FOUND.draw(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"must be the photo of these faces, 100x50 pixels. Received: 10x20"):
        FOUND.draw(image=np.zeros((20, 10, 3), np.uint8))
    with pytest.raises(ValueError, match=r"pictures are saved as .jpg"):
        FOUND.draw(tmp_path / "out.tga", image=photo)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png"]


def test_draw_reads_the_photo_again_where_it_came_as_a_path(bundled_model, sample_photo, tmp_path):
    faces = bundled_model.detect(sample_photo)
    assert faces.source == str(sample_photo)
    faces.draw(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as picture:
        assert picture.size == (512, 512)
    assert bundled_model.detect([np.zeros((40, 40, 3), np.uint8)])[0].source is None


@pytest.mark.parametrize("name", ["photo.png", "link.png"])
def test_a_photo_is_not_drawn_over(name, tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "photo.png")
    (tmp_path / "link.png").symlink_to("photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    for faces, options in (
        (replace(FOUND, source=str(tmp_path / "photo.png")), {}),
        (FOUND, {"image": tmp_path / name}),
    ):
        with pytest.raises(ValueError, match="is the photo itself, and would be replaced"):
            faces.draw(tmp_path / name, **options)
    assert (tmp_path / "photo.png").read_bytes() == before


def test_save_writes_the_report_of_the_commands(tmp_path):
    FOUND.save(tmp_path / "faces.json")
    (photo,) = json.loads((tmp_path / "faces.json").read_text("utf-8"))
    assert (photo["file"], photo["width"], photo["faces"][1]["box"]) == ("", 100, [5, 6, 7, 8])
    FOUND.save(tmp_path / "faces.csv")
    rows = list(csv.DictReader((tmp_path / "faces.csv").open()))
    assert [row["score"] for row in rows] == ["0.9", "0.5"]
    with pytest.raises(ValueError, match=r"saved as .json or .csv"):
        FOUND.save(tmp_path / "faces.txt")


def test_detections_pickle():
    again = pickle.loads(pickle.dumps(FOUND))
    np.testing.assert_array_equal(again.landmarks, FOUND.landmarks)
