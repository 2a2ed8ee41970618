"""Does the chosen threshold give what was wished for, and is an impossible wish said to be one?"""

import argparse
import json
import math

import numpy as np
import pytest
from evaluation_data import command, found, ground_truth, random_set

from retinaface_tf.evaluation.thresholds import choose_threshold, find_thresholds, operating_points, score_detections

FACE, OTHER, EMPTY = [0, 0, 10, 10], [40, 0, 50, 10], [80, 80, 90, 90]


@pytest.fixture
def two_photos():
    """Three faces, scores 0.9 right, 0.8 wrong, 0.7 right, 0.6 twice the same face, one face never found."""
    faces = ground_truth({"a": [FACE, OTHER], "b": [FACE], "c": []})
    detections = {"a": found([FACE, EMPTY, FACE], [0.9, 0.8, 0.6]), "b": found([FACE], [0.7])}
    return score_detections(faces, detections, np.ones(3, bool))


def test_operating_points_by_hand(two_photos):
    points = operating_points(two_photos)
    assert points["threshold"].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert points["precision"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert points["recall"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert points["false_positives_per_image"].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("wanted", "value", "threshold"),
    [
        ("precision", 1, 0.9),
        ("precision", 0.6, 0.7),  # 0.8 has less, but lower down it is reached again, with more faces
        ("recall", 0.5, 0.7),
        ("recall", 0.9, None),
        ("false_positives_per_image", 0.5, 0.7),
        ("false_positives_per_image", 0, 0.9),
    ],
)
def test_wishes(two_photos, wanted, value, threshold):
    (row,) = find_thresholds(two_photos, [(wanted, value)], resamples=20)
    assert row["threshold"] == threshold
    if threshold is None:
        assert row["interval"] is None and row["best"] == pytest.approx(2 / 3)


def test_equal_scores_come_together():
    faces = ground_truth({"a": [FACE]})
    scored = score_detections(faces, {"a": found([FACE, EMPTY], [0.5, 0.5])}, np.ones(1, bool))
    assert operating_points(scored)["precision"].tolist() == [0.5]


def test_the_overlap_is_the_plain_one_without_a_pixel_more():
    faces = ground_truth({"a": [[0, 0, 2, 2]]})
    detections = {"a": found([[1, 0, 3, 2]], [0.9])}  # IoU 1/3; 1/2 with the +1 of the WIDER tool
    assert not score_detections(faces, detections, np.ones(1, bool)).right.any()


def test_detections_in_photos_without_faces_are_false_alarms():
    faces = ground_truth({"a": [FACE], "b": []})
    scored = score_detections(faces, {"a": found([FACE], [0.9]), "b": found([FACE], [0.95])}, np.ones(1, bool))
    assert operating_points(scored)["precision"].tolist() == [0, 0.5]


def test_faces_that_do_not_count_count_neither_way():
    faces = ground_truth({"a": [FACE, OTHER]})
    scored = score_detections(faces, {"a": found([FACE, OTHER], [0.9, 0.8])}, np.array([True, False]))
    assert scored.scores.tolist() == [0.9]


def test_the_interval_holds_the_threshold_and_draws_are_weights():
    faces, detections = random_set(0, scores="spread", num_images=60)
    scored = score_detections(faces, detections, np.ones(len(faces.boxes), bool))
    (row,) = find_thresholds(scored, [("recall", 0.3)], resamples=100)
    assert row["interval"][0] <= row["threshold"] <= row["interval"][1]
    assert row["interval"][0] < row["interval"][1] and row["reached_in"] > 0.5
    doubled = operating_points(scored, np.full(60, 2.0))
    np.testing.assert_allclose(doubled["precision"], operating_points(scored)["precision"])


def test_nothing_found_reaches_nothing():
    faces = ground_truth({"a": [FACE]})
    (row,) = find_thresholds(score_detections(faces, {}, np.ones(1, bool)), [("precision", 0.5)], resamples=5)
    assert row["threshold"] is None and row["best"] is None
    with pytest.raises(ValueError, match="wanted"):
        choose_threshold({}, "luck", 1)
    assert math.isnan(
        operating_points(score_detections(faces, {"a": found([EMPTY], [1])}, np.zeros(1, bool)))["recall"][0]
    )


def test_the_command_takes_csv_and_coco_json(tmp_path, capsys):
    (tmp_path / "faces.csv").write_text("file,x1,y1,x2,y2\na.jpg,0,0,10,10\nb.jpg,,,,\na.jpg,40,0,50,10\n")
    rows = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]
    rows += [{"image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.4}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    parser = argparse.ArgumentParser()
    command("thresholds").add_arguments(parser)
    words = ["--ground-truth", str(tmp_path / "faces.csv"), "--detections", str(tmp_path / "found.json")]
    wishes = ["--precision", "1", "--recall", "0.9", "--false-positives-per-image", "0.5"]
    assert command("thresholds").run(parser.parse_args([*words, *wishes])) == 0
    text = capsys.readouterr().out
    assert "2 photos, 2 faces" in text and "not reachable: the nearest is 0.5" in text
    command("thresholds").run(parser.parse_args([*words, *wishes, "--json", "-"]))
    result = json.loads(capsys.readouterr().out)
    assert [row["threshold"] for row in result["thresholds"]] == [0.9, None, 0.4]
    for words_too, message in [
        (["--precision", "2"], "out of range"),
        (["--iou", "1.5"], "iou_threshold"),
        (["--subset", "hard"], "must be one of"),
        (["--images", "x"], "only used with a model"),
        (["--preset", "p", "--images", "x"], "must be a folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            command("thresholds").run(parser.parse_args([*words, *words_too]))
