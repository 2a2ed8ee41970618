"""What a teacher says of photos that it sees enlarged: numbers small enough to check by eye, and files."""

from importlib import resources

import numpy as np
import pytest

from retinaface_tf.annotations.annotations import annotate_photo
from retinaface_tf.annotations.csv import write_csv
from retinaface_tf.annotations.read import read_annotations
from retinaface_tf.cli.main import main
from retinaface_tf.evaluation import teacher
from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.evaluation.teacher import (
    Seen,
    accept,
    append_look,
    look,
    read_looks,
    read_points,
    teach,
    vote_by_view,
)

FACE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def points_in(boxes):
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return boxes[:, None, :2] + FACE * (boxes[:, 2:] - boxes[:, :2])[:, None]


def found(boxes, scores):
    return ImageDetections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), points_in(boxes))


def seen(boxes, scores, spread=0.0):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Seen(boxes, np.array(scores, float), points_in(boxes), np.full(len(boxes), spread))


def test_the_score_is_the_mean_over_the_views_that_are_asked():
    """A face of 20 pixels that one view of two misses; one of 8 pixels, of which the larger view alone is asked."""
    first = found([[0, 0, 20, 20]], [0.8])
    second = found([[100, 100, 108, 108]], [0.6])
    got = vote_by_view([first, second], scales=[1.0, 2.0], largest=[np.inf, 320.0])
    np.testing.assert_allclose(got.scores, [0.6, 0.4])
    np.testing.assert_allclose(got.boxes, [[100, 100, 108, 108], [0, 0, 20, 20]])
    assert np.isnan(got.spread).all()


def test_views_that_agree_become_one_face_and_tell_how_far_they_differ():
    """Weights 3 : 1 put the box at 1 of 4 pixels; the landmarks lie 1 and 3 from their mean: 1.5 of 40 pixels."""
    views = [found([[0, 0, 40, 40]], [0.9]), found([[4, 0, 44, 40]], [0.3])]
    got = vote_by_view(views, scales=[1.0, 1.0], largest=[np.inf, np.inf])
    np.testing.assert_allclose(got.boxes, [[1, 0, 41, 40]])
    np.testing.assert_allclose(got.scores, [0.6])
    np.testing.assert_allclose(got.landmarks, points_in([[1, 0, 41, 40]]))
    np.testing.assert_allclose(got.spread, [(0.75 * 1 + 0.25 * 3) / 40])


def test_what_a_view_finds_comes_back_to_the_photo():
    """The detector finds a white square in any view, mirrored or in tiles, and the photo's pixels come back."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:40, 10:30] = 255

    def detect(view):
        rows, columns = np.nonzero(view[..., 0] > 127)
        if not len(rows):
            return found([], [])
        return found([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], [0.7])

    got = look(detect, image, scales=(1, 2, 4), flip=True)
    np.testing.assert_allclose(got.boxes, [[10, 20, 30, 40]], atol=0.6)
    np.testing.assert_allclose(got.scores, [0.7])
    assert got.spread[0] < 0.05


def test_a_large_view_is_shown_in_tiles_that_find_what_lies_between_them(monkeypatch):
    monkeypatch.setattr(teacher, "TILE", 64)
    monkeypatch.setattr(teacher, "TILE_OVERLAP", 24)
    image = np.zeros((70, 150, 3), np.uint8)
    image[30:50, 50:70] = 255  # across the edge of the first tile, whole in the second
    shapes = []

    def detect(view):
        shapes.append(view.shape[:2])
        rows, columns = np.nonzero(view[..., 0] > 127)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
        return found(box, [0.7] if box else [])

    got = look(detect, image, scales=(1,))
    assert set(shapes) == {(64, 64)} and len(shapes) == 2 * 4
    np.testing.assert_allclose(got.boxes, [[50, 30, 70, 50]])


def faces_of(annotations):
    """(boxes of faces, their scores, ignore regions) as lists."""
    face = ~annotations.ignore
    return annotations.boxes[face].tolist(), annotations.scores[face].tolist(), annotations.boxes[~face].tolist()


def test_without_points_the_score_decides_and_doubt_is_an_ignore_region():
    boxes = [[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20]]
    got = accept("a.jpg", seen(boxes, [0.9, 0.3, 0.01]), min_score=0.5)
    assert faces_of(got) == ([[0, 0, 20, 20]], [0.9], [[40, 0, 60, 20]])


def test_landmarks_are_kept_where_the_views_agree():
    faces = seen([[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20]], [0.9, 0.8, 0.7])
    got = accept("a.jpg", faces._replace(spread=np.array([0.01, 0.5, np.nan])), max_spread=0.06)
    assert (got.visible >= 0).all(axis=1).tolist() == [True, False, False]
    np.testing.assert_allclose(got.landmarks[0], faces.landmarks[0])


def test_human_points_confirm_faces_and_mark_what_nobody_found():
    """One point in two boxes confirms one face; what lies far from all points is background unless it is sure."""
    boxes = [[0, 0, 20, 20], [2, 2, 22, 22], [60, 0, 80, 20], [200, 0, 220, 20]]
    points = np.array([[10, 5], [70, 2], [130, 10]])
    faces, scores, regions = faces_of(accept("a.jpg", seen(boxes, [0.9, 0.4, 0.3, 0.3]), points, min_score=0.5))
    assert faces == [[0, 0, 20, 20], [60, 0, 80, 20]] and scores == [1, 1]
    # The second box lies near a point; the fourth, under 0.5 and far from all, is background. The third point has no
    # face: a square about it, as large as its distances to the other points where fewer than three faces tell more.
    assert regions[0] == [2, 2, 22, 22] and len(regions) == 2
    np.testing.assert_allclose(np.reshape(regions[1], (2, 2)).mean(axis=0), [130, 10])


def test_a_part_of_a_face_is_no_face():
    got = accept("a.jpg", seen([[0, 0, 100, 100], [20, 30, 50, 60]], [0.9, 0.8]))
    assert faces_of(got) == ([[0, 0, 100, 100]], [0.9], [[20, 30, 50, 60]])


def test_people_come_first_and_a_face_that_the_teacher_denies_is_a_region():
    """Two faces with landmarks and no box: the first gets that of the detection, the second has none that agrees."""
    eyes = np.stack([FACE * 20, FACE * 20 + 100])
    people = annotate_photo("a.jpg", np.full((2, 4), np.nan), eyes, np.ones((2, 5)))
    looks = {"a.jpg": seen([[0, 0, 20, 20], [200, 0, 240, 40]], [0.2, 0.8])}
    done = teach(people, looks.__getitem__)
    faces, scores, (region,) = faces_of(done.annotations)
    assert faces == [[0, 0, 20, 20], [200, 0, 240, 40]] and scores == [1, 0.8] and done.faces_added == 1
    assert region[0] < 106 and region[1] < 106 and region[2] > 114 and region[3] > 114
    # The teacher's landmarks are for faces with boxes of the given classes, and where it is sure.
    masked = annotate_photo("a.jpg", [[0, 0, 20, 20], [200, 0, 240, 40]], classes=["masked", "bare"])
    got = teach(masked, looks.__getitem__, classes=["bare"]).annotations
    assert (got.visible[:2] >= 0).all(axis=1).tolist() == [False, True] and not got.ignore.any()


def test_what_is_written_is_what_is_read(tmp_path):
    got = accept("a.jpg", seen([[1, 2, 31, 42], [50, 60, 70, 80]], [0.75, 0.25]))
    write_csv(tmp_path / "faces.csv", got)
    again = read_annotations(tmp_path / "faces.csv", tmp_path)
    assert faces_of(again) == faces_of(got) == ([[1, 2, 31, 42]], [0.75], [[50, 60, 70, 80]])


def test_looks_are_read_as_they_were_kept_without_a_line_that_was_cut(tmp_path):
    one = seen([[1.25, 2, 30, 40]], [0.5], spread=np.nan)
    append_look(tmp_path / "looks.jsonl", "a.jpg", one)
    with (tmp_path / "looks.jsonl").open("a") as file:
        file.write('{"file": "b.jpg", "box')
    looks = read_looks(tmp_path / "looks.jsonl")
    append_look(tmp_path / "looks.jsonl", "b.jpg", one)
    assert list(looks) == ["a.jpg"] and list(read_looks(tmp_path / "looks.jsonl")) == ["a.jpg", "b.jpg"]
    for got, expected in zip(looks["a.jpg"], one, strict=True):
        np.testing.assert_allclose(got, expected, atol=0.006)


@pytest.mark.parametrize("content", ["my notes", '{"a": 1}', '{"file": ['])
def test_a_file_of_something_else_loses_nothing(content, tmp_path):
    (tmp_path / "notes").write_text(content)
    with pytest.raises(ValueError, match=r"notes:1: not what `label --detections` wrote"):
        read_looks(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == content


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--scales", "1,x"], "--scales must be numbers"),
        (["--scales", "0,1"], "--scales must be numbers"),
        (["--flip", "--annotations", "a.csv"], "--flip and --detections need --scales"),
        ([], "--annotations is needed without --scales"),
        (["--points", "heads.csv", "--scales", "1", "--annotations", "a.csv"], "--points FILE needs --scales"),
        (["--points", "chin", "--scales", "1"], "--points must be names of left_eye"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, capsys, words, line):
    assert main(["label", "--images", str(tmp_path), "--output", str(tmp_path / "out.csv"), *words]) == 2
    assert line in capsys.readouterr().err and not (tmp_path / "out.csv").exists()


def test_points_need_their_columns(tmp_path):
    (tmp_path / "heads.csv").write_text("file,x\na.jpg,1\n")
    with pytest.raises(ValueError, match="expected a header with file, x, y"):
        read_points(tmp_path / "heads.csv")


@pytest.mark.parametrize("text", ["File,X,Y\na.jpg,1,2\n", "file;x;y\r\na.jpg;1;2\r\n", "y,file,x\n2,a.jpg,1\n"])
def test_points_are_read_as_spreadsheets_write_them(text, tmp_path):
    (tmp_path / "heads.csv").write_text(text, newline="")
    assert {file: points.tolist() for file, points in read_points(tmp_path / "heads.csv").items()} == {
        "a.jpg": [[1, 2]]
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,x,y\na.jpg,1,5,2,5\n", "heads.csv:2: expected 3 values, it has 5"),  # decimal commas
        ("file,x,y,X\na.jpg,1,2,3\n", "names x 2 times"),
        ('file,x,y\n"a.jpg"z,1,2\n', "heads.csv: not CSV"),
    ],
)
def test_points_that_could_be_others_are_refused(text, line, tmp_path):
    (tmp_path / "heads.csv").write_text(text)
    with pytest.raises(ValueError, match=line):
        read_points(tmp_path / "heads.csv")


def test_the_bundled_model_teaches_itself_the_bundled_photo(tmp_path, capsys):
    photo = (resources.files("retinaface_tf") / "samples" / "astronaut.jpg").read_bytes()
    (tmp_path / "astronaut.jpg").write_bytes(photo)
    (tmp_path / "heads.csv").write_text("file,x,y\nastronaut.jpg,225,100\nastronaut.jpg,400,480\n")
    words = ["label", "--images", str(tmp_path), "--output", str(tmp_path / "out.csv"), "--scales", "0.5,1", "--flip"]
    looks = ["--detections", str(tmp_path / "looks.jsonl"), "--quiet"]
    assert main([*words, *looks, "--points", str(tmp_path / "heads.csv")]) == 0
    record = read_annotations(tmp_path / "out.csv", tmp_path)
    (box,), scores, regions = faces_of(record)
    assert scores == [1] and (record.visible[0] == 1).all()
    assert 170 < box[0] < 190 and 50 < box[1] < 75 and 260 < box[2] < 290 and 170 < box[3] < 200
    assert any(left < 400 < right and top < 480 < bottom for left, top, right, bottom in regions)
    # Without points, from what it has seen: the photo need not be read again.
    (tmp_path / "astronaut.jpg").write_bytes(b"")
    assert main([*words, *looks]) == 0
    capsys.readouterr()
    assert main([*words, *looks, "--scales", "1"]) == 2
    assert "looks.jsonl:1: contains results of another run: scales was [0.5, 1.0], now [1.0]" in capsys.readouterr().err
    (again,), (score,), _ = faces_of(read_annotations(tmp_path / "out.csv", tmp_path))
    assert again == box and 0.9 < score < 1
