"""Are landmark errors what a ruler would say, and do all layouts give the same five points?"""

import argparse
import json
import math
import sqlite3

import numpy as np
import pytest
from evaluation_data import command, found, use_detector
from PIL import Image

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.annotations.read import read_annotations
from retinaface_tf.evaluation.landmarks import (
    area_under_curve,
    choose_face,
    cumulative_error,
    evaluate_landmarks,
    face_size,
    failure_rate,
    landmark_distances,
    mean_errors,
    predict_landmarks,
    require_landmarks,
)

# Eyes 40 px apart, box 60 x 80: sqrt(w h) = 69.28, diagonal 100.
FACE = np.array([[10.0, 20], [50, 20], [30, 40], [15, 60], [45, 60]])
BOX = np.array([0.0, 0, 60, 80])


def test_sizes_by_ruler():
    one = FACE[None], BOX[None]
    assert face_size(*one, "inter-ocular") == 40
    assert face_size(*one, "box") == pytest.approx(math.sqrt(4800))
    assert face_size(*one, "diagonal") == 100
    assert np.isnan(face_size(FACE[None], BOX[None] * 0, "box"))
    with pytest.raises(ValueError, match="needs face boxes"):
        face_size(FACE[None], None, "box")
    with pytest.raises(ValueError, match="normalizer"):
        face_size(*one, "pupils")


def test_four_pixels_on_forty_are_a_tenth():
    distances = landmark_distances(FACE[None] + [4, 0], FACE[None], [40.0])
    np.testing.assert_allclose(distances, np.full((1, 5), 0.1))
    assert mean_errors(distances) == pytest.approx(0.1)


def test_unannotated_points_do_not_count_and_missed_faces_are_infinitely_wrong():
    truth = np.stack([FACE, FACE])
    truth[0, 2] = np.nan
    predicted = np.stack([FACE, np.full((5, 2), np.nan)])
    predicted[0, 0, 0] += 8
    errors = mean_errors(landmark_distances(predicted, truth, [40.0, 40.0]))
    assert errors.tolist() == [pytest.approx(0.2 / 4), math.inf]


def test_the_area_under_the_curve_is_exact():
    errors = np.random.default_rng(0).gamma(2, 0.03, 500)
    thresholds = np.linspace(0, 0.1, 200_001)
    sampled = np.trapezoid(cumulative_error(errors, thresholds), thresholds) / 0.1
    assert area_under_curve(errors, 0.1) == pytest.approx(sampled, abs=1e-5)
    assert area_under_curve([0.05, np.inf], 0.1) == 0.25
    with pytest.raises(ValueError, match="threshold"):
        area_under_curve(errors, 0)


def test_failures_and_the_curve_by_hand():
    errors = [0.01, 0.1, 0.2, np.inf, np.nan]
    assert failure_rate(errors, 0.1) == 0.5
    assert cumulative_error(errors, [0, 0.01, 0.1, 9]).tolist() == [0, 0.25, 0.5, 0.75]


def test_the_report_separates_missed_from_wrong():
    predicted = np.stack([np.add(FACE, [4, 0]), np.add(FACE, [0, 20]), np.full((5, 2), np.nan)])
    result = evaluate_landmarks(np.stack([FACE] * 3), predicted, np.stack([BOX] * 3), resamples=50)
    assert (result["faces"], result["found"]) == (3, 2)
    assert result["inter-ocular"]["nme"] == pytest.approx((0.1 + 0.5) / 2)
    assert result["diagonal"]["nme"] == pytest.approx((0.04 + 0.2) / 2)
    assert result["diagonal"]["failure_rate"] == pytest.approx(2 / 3)
    low, high = result["diagonal"]["interval_95"]
    assert 0.04 <= low < 0.12 < high <= 0.2 + 1e-12
    assert "box" not in evaluate_landmarks(FACE[None], FACE[None])


def test_the_box_chooses_the_face_not_the_landmarks():
    centered, beside = found([BOX], [0.5]).boxes[0], [25, 35, 35, 45]
    wrong = np.stack([FACE + 30, FACE])
    chosen = choose_face(found([centered, beside], [0.5, 0.9], wrong), FACE, BOX)
    np.testing.assert_array_equal(chosen, FACE + 30)
    # A tight box beside the middle of the landmarks overlaps more than a wide one around it, and is not it.
    wide, upper = [-90, -90, 150, 170], [0, 0, 60, 35]
    np.testing.assert_array_equal(choose_face(found([upper, wide], [0.9, 0.5], wrong), FACE, BOX), FACE)
    assert np.isnan(choose_face(found([[100, 100, 200, 200]], [0.9], FACE[None]), FACE, BOX)).all()
    assert np.isnan(choose_face(found([], [], np.zeros((0, 5, 2))), FACE)).all()


def test_csv_and_list_read_the_same_face(tmp_path):
    numbers = [str(value) for value in FACE.ravel()]
    (tmp_path / "a.csv").write_text("file," + ",".join("xy" * 5) + "\n" + ",".join(["a/b.jpg", *numbers]) + "\n")
    (tmp_path / "b.csv").write_text(",".join(["a/b.jpg", *numbers, "0", "0", "60", "80"]) + "\n")
    (tmp_path / "list.txt").write_text(" ".join(["a\\b.jpg", "0", "60", "0", "80", *numbers]) + "\n")
    for faces in map(read_annotations, (tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "list.txt")):
        assert faces.files == ("a/b.jpg",)
        np.testing.assert_array_equal(faces.landmarks, FACE[None])
    assert np.isnan(read_annotations(tmp_path / "a.csv").boxes).all()
    np.testing.assert_array_equal(read_annotations(tmp_path / "b.csv").boxes, BOX[None])
    np.testing.assert_array_equal(read_annotations(tmp_path / "list.txt").boxes, BOX[None])
    (tmp_path / "bad.csv").write_text("a.jpg,1,2\n")
    with pytest.raises(ValueError, match=":1: expected a file and 10 or 14 numbers"):
        read_annotations(tmp_path / "bad.csv")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="no annotated face"):
        read_annotations(tmp_path / "empty.txt", kind="list")


def test_a_csv_with_names_is_read_by_them(tmp_path):
    """The file that `label` writes and `convert custom` reads: its box comes first, and cells may be empty."""
    path = tmp_path / "faces.csv"
    names = [
        f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
    ]
    numbers = [str(value) for value in FACE.ravel()]
    half = [*numbers[:4], *[""] * 6]
    rows = [["a.jpg", "0", "0", "60", "80", *numbers], ["b.jpg", *"1234", *half], ["c.jpg", *"1234", *[""] * 10]]
    path.write_text("\n".join(",".join(row) for row in [["file", "x1", "y1", "x2", "y2", *names], *rows]) + "\n")
    faces = require_landmarks(read_annotations(path))
    assert faces.image.tolist() == [0, 1]  # nothing to measure in the third
    np.testing.assert_array_equal(faces.landmarks[0], FACE)
    np.testing.assert_array_equal(faces.landmarks_or_nan()[1], [*FACE[:2], *[[np.nan] * 2] * 3])
    np.testing.assert_array_equal(faces.boxes, [BOX, [1, 2, 3, 4]])
    path.write_text(
        ",".join([*names, "file", "x", "y", "w", "h"]) + "\n" + ",".join([*numbers, "a.jpg", *"1234"]) + "\n"
    )
    np.testing.assert_array_equal(read_annotations(path).boxes, [[1, 2, 4, 6]])
    path.write_text(",".join(["file", *names, "blur"]) + "\n" + ",".join(["a.jpg", *numbers, "heavy"]) + "\n")
    assert np.isnan(read_annotations(path).boxes).all()
    for text, line in (
        (f"file,{','.join(names[1:])}\n", "one of left_eye_x and left_eye_y, not both"),
        (f"name,{','.join(names)}\n", "expected a header with file"),
        (f"file,{','.join(names)}\na.jpg,one{',1' * 9}\n", ":2: left_eye_x, left_eye_y: expected 2 numbers"),
        (f"file,{','.join(names)}\na.jpg{',1' * 9}\n", ":2: expected 11 values, it has 10"),
        (f"file,{','.join(names)},x1,y1,x2,y2\na.jpg{',1' * 14}\na.jpg{',1' * 10},,,,\n", "some faces have a box and"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=line):
            require_landmarks(read_annotations(path))


def test_sixty_eight_points_become_five(tmp_path):
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = FACE[0], FACE[1]
    points[36] += [6, 0]  # one of six: the mean moves by 1
    points[30], points[48], points[54] = FACE[2:]
    points[8] = [30, 90]
    text = "\n".join(f"{x + 1} {y + 1}" for x, y in points)
    (tmp_path / "indoor_001.pts").write_text(f"version: 1\nn_points: 68\n{{\n{text}\n}}\n")
    faces = read_annotations(tmp_path)
    assert faces.files == ("indoor_001.jpg",)
    np.testing.assert_allclose(faces.landmarks[0] - FACE, [[1, 0], [0, 0], [0, 0], [0, 0], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(faces.boxes, [[0, 0, 50, 90]])
    (tmp_path / "indoor_002.pts").write_text("version: 1\nn_points: 3\n{\n1 2\n}\n")
    with pytest.raises(ValueError, match="68 points"):
        read_annotations(tmp_path)


def test_aflw_points_that_cannot_be_seen_are_missing(tmp_path):
    with sqlite3.connect(tmp_path / "aflw.sqlite") as database:
        database.executescript(
            "CREATE TABLE Faces (face_id INTEGER, file_id TEXT);"
            "CREATE TABLE FaceImages (file_id TEXT, filepath TEXT);"
            "CREATE TABLE FaceRect (face_id INTEGER, x INTEGER, y INTEGER, w INTEGER, h INTEGER);"
            "CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL);"
            "CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT);"
            "INSERT INTO Faces VALUES (39341, 'f'); INSERT INTO FaceImages VALUES ('f', '0/image1.jpg');"
            "INSERT INTO FaceRect VALUES (39341, 5, 6, 60, 80);"
            "INSERT INTO FeatureCoordTypes VALUES (8, 'LeftEyeCenter'), (11, 'RightEyeCenter'), (15, 'NoseCenter'),"
            " (18, 'MouthLeftCorner'), (20, 'MouthRightCorner'), (21, 'ChinCenter');"
            "INSERT INTO FeatureCoords VALUES (39341, 8, 10, 20), (39341, 15, 30, 40), (39341, 20, 45, 60),"
            " (39341, 21, 30, 80);"
        )
    faces = read_annotations(tmp_path / "aflw.sqlite")
    assert faces.files == ("0/image1.jpg",)
    np.testing.assert_array_equal(faces.boxes, [[5, 6, 65, 86]])
    np.testing.assert_array_equal(faces.landmarks[0, [0, 2, 4]], FACE[[0, 2, 4]])
    assert np.isnan(faces.landmarks_or_nan()[0, [1, 3]]).all()
    (tmp_path / "no.sqlite").write_text("not a database, but long enough to look like a file")
    with pytest.raises(ValueError, match="not AFLW's SQLite"):
        read_annotations(tmp_path / "no.sqlite")
    with pytest.raises(FileNotFoundError):
        read_annotations(tmp_path / "none.sqlite")


def test_predictions_go_on_after_an_interruption(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (80, 100)).save(tmp_path / name)
    unknown = np.full(4, np.nan)
    photos = {name: tmp_path / name for name in ("a.png", "b.png")}
    parts = [("a.png", [FACE, FACE + 900]), ("b.png", [FACE])]
    faces = join(annotate_photo(n, [unknown] * len(f), f, np.ones((len(f), 5), int)) for n, f in parts)
    calls = []

    def detect(image):
        calls.append(image.shape)
        return found([BOX], [0.9], FACE[None])

    path = tmp_path / "out" / "predictions.csv"
    first = predict_landmarks(detect, faces, photos, path, progress=False)
    assert len(calls) == 2 and np.isnan(first[1]).all()
    text = path.read_text()
    path.write_text(text[: text.index("b.png") + 9])  # cut off within the last photo's line
    again = predict_landmarks(detect, faces, photos, path, progress=False)
    assert len(calls) == 3
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(predict_landmarks(None, faces, None, path), first)
    other = faces.replace(files=("c.png", "b.png"))
    with pytest.raises(ValueError, match="not in this ground truth"):
        predict_landmarks(None, other, None, path)


def test_the_command_runs_scores_and_draws(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    Image.new("RGB", (80, 100)).save(tmp_path / "a.png")
    (tmp_path / "truth.csv").write_text("a.png," + ",".join(str(v) for v in FACE.ravel()) + ",0,0,60,80\n")
    use_detector(monkeypatch, lambda image: found([BOX], [0.9], FACE[None] + [4, 0]))
    parser = argparse.ArgumentParser()
    command("landmarks").add_arguments(parser)
    words = ["--ground-truth", "truth.csv", "--images", "", "--predictions", "p.csv", "--plots", "plots", "--quiet"]
    paths = [word if word.startswith("--") else str(tmp_path / word) for word in words]
    assert command("landmarks").run(parser.parse_args(paths)) == 0
    assert "1 of 1 faces found" in capsys.readouterr().out
    assert (tmp_path / "plots" / "cumulative_error.png").stat().st_size > 5000
    paths = paths[:2] + paths[4:6] + ["--json", "-"]
    assert command("landmarks").run(parser.parse_args(paths)) == 0
    assert json.loads(capsys.readouterr().out)["diagonal"]["nme"] == pytest.approx(0.04)


def test_a_strangers_aflw_database_computes_nothing(tmp_path):
    tables = (
        "FaceImages(file_id, filepath), FeatureCoords(face_id, feature_id, x, y), FeatureCoordTypes(feature_id, descr)"
    )
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n AS face_id, n AS file_id FROM r"
    with sqlite3.connect(tmp_path / "aflw.sqlite") as database:
        for table in (*tables.replace("), ", ");").split(";"), "FaceRect(face_id, x, y, w, h)"):
            database.execute(f"CREATE TABLE {table}")
        database.execute(f"CREATE VIEW Faces AS {endless}")
    with pytest.raises(ValueError, match=r"aflw\.sqlite: not AFLW's SQLite file \('no table Faces'\)"):
        read_annotations(tmp_path / "aflw.sqlite")
