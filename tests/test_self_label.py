"""What a model may add to labels of people: numbers small enough to check by eye, and files."""

from types import SimpleNamespace

import numpy as np
import pytest

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.annotations.complete import add_boxes, add_landmarks, believe_landmarks, complete, find_unlabeled
from retinaface_tf.annotations.csv import write_csv
from retinaface_tf.annotations.read import read_annotations
from retinaface_tf.cli.main import main

FACE = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], float)  # eyes 40 apart


def found(*faces):
    """(box, score, shift of the landmarks) each."""
    boxes, scores, shifts = zip(*faces, strict=True) if faces else ([], [], [])
    landmarks = np.array([FACE + shift for shift in shifts]).reshape(-1, 5, 2)
    return SimpleNamespace(boxes=np.array(boxes, float).reshape(-1, 4), scores=np.array(scores), landmarks=landmarks)


def test_landmarks_come_from_the_sure_detection_that_overlaps_most():
    boxes = [[0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100], [600, 0, 700, 100]]
    detections = found(
        ([0, 0, 100, 60], 0.99, 1.0),
        ([0, 0, 100, 90], 0.95, 0.0),  # this one
        ([200, 0, 300, 40], 0.99, 0.0),  # overlaps 0.4
        ([400, 0, 500, 100], 0.8, 0.0),  # not sure
        ([600, 0, 700, 100], 0.99, 0.0),  # a mask
    )
    labels = add_landmarks(boxes, detections, [True, True, True, False], min_score=0.9, min_iou=0.5)
    np.testing.assert_array_equal(labels[0], FACE)
    assert np.isnan(labels[1:]).all()


def test_one_detection_speaks_for_one_face_alone():
    labels = add_landmarks([[0, 0, 100, 100], [0, 0, 100, 70]], found(([0, 0, 100, 75], 1.0, 0.0)), [True, True])
    assert np.isnan(labels[0]).all() and not np.isnan(labels[1]).any()


@pytest.mark.parametrize(("shift", "agrees"), [(9.0, True), (11.0, False)])
def test_a_box_comes_from_the_detection_whose_eyes_agree(shift, agrees):
    eyes = np.where(np.arange(5)[:, None] < 2, FACE, np.nan)
    detections = found(([10, 10, 90, 100], 0.9, [shift, 0]), ([500, 0, 600, 90], 0.99, 400))
    boxes, landmarks = add_boxes([eyes], detections, max_eye_error=0.25)  # of 40 pixels
    if not agrees:
        assert np.isnan(boxes).all()
        return
    np.testing.assert_array_equal(boxes, [[10, 10, 90, 100]])
    np.testing.assert_array_equal(landmarks[0, :2], FACE[:2])  # of people
    np.testing.assert_array_equal(landmarks[0, 2:], FACE[2:] + np.array([shift, 0]))  # of the model


def test_detections_under_the_score_and_photos_without_any_give_no_box():
    assert np.isnan(add_boxes([FACE], found(([0, 0, 90, 90], 0.4, 0.0)), min_score=0.5)[0]).all()
    assert np.isnan(add_boxes([FACE], found())[0]).all()
    assert np.isnan(add_landmarks([[0, 0, 9, 9]], found(), [True])).all()


def test_faces_that_nobody_marked_are_added_when_sure_and_apart():
    detections = found(([0, 0, 100, 90], 1.0, 1), ([200, 0, 300, 100], 0.95, 2), ([400, 0, 500, 100], 0.6, 3))
    assert find_unlabeled([[0, 0, 100, 100]], detections, min_score=0.9).tolist() == [False, True, False]
    labels = annotate_photo("a.jpg", [[0, 0, 100, 100]])
    more, _, _, added = complete(labels, lambda file: detections, add_unlabeled=True)
    np.testing.assert_array_equal(more.boxes, [[0, 0, 100, 100], [200, 0, 300, 100]])
    np.testing.assert_array_equal(more.landmarks, [FACE + 1, FACE + 2])
    assert added == 1 and more.files == ("a.jpg",) and (more.visible == 1).all()


def test_what_is_written_is_what_convert_reads(tmp_path):
    boxes = [[1.0, 2, 30.25, 40], [5, 6, 7, 8]]
    labels = annotate_photo("a.jpg", boxes, [FACE, FACE], [[1] * 5, [-1] * 5])
    write_csv(tmp_path / "faces.csv", join([labels, annotate_photo("b.jpg")]))
    first, second = read_annotations(tmp_path / "faces.csv")
    np.testing.assert_allclose(first.boxes, [[1, 2, 30.25, 40], [5, 6, 7, 8]])
    np.testing.assert_allclose(first.landmarks[0], FACE)
    assert (first.visible == [[1] * 5, [-1] * 5]).all() and second.num_faces == 0
    again = believe_landmarks(first, ("nose",)).landmarks_or_nan()[0]
    np.testing.assert_array_equal(again[2], FACE[2])
    assert np.isnan(np.delete(again, 2, axis=0)).all()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,x1,y1\n", "expected a header"),
        ("file,x1,y1,x2,y2\na.jpg,1,2,3\n", ":2: expected 5 values"),
        ("file,x1,y1,x2,y2\na.jpg,1,2,3,four\n", ":2: x1 y1 x2 y2: expected 4 numbers"),
        ("file,x1,y1,x2,y2\na.jpg,1,2,3,4\n", "no such photo"),
    ],
)
def test_bad_labels_are_one_line_and_no_output(tmp_path, capsys, text, line):
    (tmp_path / "in.csv").write_text(text)
    words = ["--annotations", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(["label", "--images", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_the_bundled_model_labels_the_bundled_photo(tmp_path, capsys):
    """A box by hand gets the landmarks; the landmarks, the box."""
    from importlib.resources import files

    samples = str(files("retinaface_tf") / "samples")
    (tmp_path / "boxes.csv").write_text("file,x1,y1,x2,y2,label\nastronaut.jpg,175,60,275,180,bare\n")
    words = ["label", "--images", samples, "--annotations"]
    assert (
        main([*words, str(tmp_path / "boxes.csv"), "--output", str(tmp_path / "points.csv"), "--classes", "bare"]) == 0
    )
    assert "1 photo with 1 face, 1 of them with all landmarks" in capsys.readouterr().out
    points = read_annotations(tmp_path / "points.csv").landmarks
    lines = [line.split(",") for line in (tmp_path / "points.csv").read_text().splitlines()]
    (tmp_path / "eyes.csv").write_text("".join(",".join([line[0], *line[5:]]) + "\n" for line in lines))
    assert main([*words, str(tmp_path / "eyes.csv"), "--output", str(tmp_path / "faces.csv")]) == 0
    labels = read_annotations(tmp_path / "faces.csv")
    np.testing.assert_allclose(labels.boxes, [[175, 60, 275, 180]], atol=12)
    np.testing.assert_array_equal(labels.landmarks, points)
    assert main([*words, str(tmp_path / "boxes.csv"), "--output", str(tmp_path / "x.csv"), "--classes", "hat"]) == 2
    assert "['bare']" in capsys.readouterr().err


def test_a_damaged_photo_costs_no_label_of_the_others(tmp_path, capsys):
    from importlib.resources import files

    photo = (files("retinaface_tf") / "samples" / "astronaut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(photo[:9000])
    (tmp_path / "cut.csv").write_text("file,x1,y1,x2,y2\ncut.jpg,175,60,275,180\n")
    words = ["label", "--images", str(tmp_path), "--output", str(tmp_path / "out.csv"), "--annotations"]
    assert main([*words, str(tmp_path / "cut.csv")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no photo of" in error and "cut.jpg" in error and not (tmp_path / "out.csv").exists()
    (tmp_path / "whole.jpg").write_bytes(photo)
    (tmp_path / "cut.csv").write_text((tmp_path / "cut.csv").read_text() + "whole.jpg,175,60,275,180\n")
    assert main([*words, str(tmp_path / "cut.csv")]) == 0
    assert "1 photos left out: can't be read" in capsys.readouterr().out
    assert read_annotations(tmp_path / "out.csv").files == ("whole.jpg",)
