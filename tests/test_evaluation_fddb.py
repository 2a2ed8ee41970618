"""Are FDDB's ellipses, matchings and curves those of the official tool, by hand and by brute force?"""

import argparse
import itertools
import json
import math

import numpy as np
import pytest
from evaluation_data import command, found
from PIL import Image

from retinaface_tf.annotations.fddb import read_folds
from retinaface_tf.cli.main import main
from retinaface_tf.evaluation.detection_files import read_detection_list
from retinaface_tf.evaluation.fddb import ellipse_iou, ellipses_to_boxes, evaluate_fddb, match_photo, overlap, roc


def test_an_upright_ellipse_in_its_box_covers_a_quarter_of_pi():
    ellipse = [[200, 100, math.pi / 2, 300, 400]]
    tight = ellipses_to_boxes(ellipse)
    np.testing.assert_allclose(tight, [[200, 200, 400, 600]])
    np.testing.assert_allclose(ellipses_to_boxes(ellipse, "upright"), tight)
    assert ellipse_iou(ellipse, tight)[0, 0] == pytest.approx(math.pi / 4, abs=0.01)
    assert overlap(ellipse, tight, "tight")[0, 0] == 1


def test_a_turned_ellipse_is_lower_than_upright_and_leans_to_its_angle():
    ellipse = [[100, 50, math.pi / 4, 0, 0]]
    half = math.sqrt((100**2 + 50**2) / 2)
    np.testing.assert_allclose(ellipses_to_boxes(ellipse), [[-half, -half, half, half]])
    np.testing.assert_allclose(ellipses_to_boxes(ellipse, "upright"), [[-50, -100, 50, 100]])
    along, across = [20, 20, 60, 60], [20, -60, 60, -20]  # y is downwards: the long axis points right and down
    inside = ellipse_iou(ellipse, [along, across])[0]
    assert inside[0] > 1.5 * inside[1]
    with pytest.raises(ValueError, match="conversion"):
        ellipses_to_boxes(ellipse, "round")


def test_pixels_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ellipse = [rng.uniform(3, 12), rng.uniform(2, 9), rng.uniform(-2, 2), *rng.uniform(0, 30, 2)]
        box = np.sort(rng.uniform(-5, 40, (2, 2)), axis=0).ravel()
        shared = either = 0
        long, short, x0, y0 = (
            int(ellipse[0]),
            int(ellipse[1]),
            math.floor(ellipse[3] + 0.5),
            math.floor(ellipse[4] + 0.5),
        )
        cos, sin = math.cos(ellipse[2]), math.sin(ellipse[2])
        for x, y in itertools.product(range(25), range(30)):  # only inside a photo of 25 x 30
            u, v = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
            in_ellipse = (u / long) ** 2 + (v / short) ** 2 <= 1
            in_box = int(box[0]) <= x <= int(box[2]) and int(box[1]) <= y <= int(box[3])
            shared += in_ellipse and in_box
            either += in_ellipse or in_box
        expected = shared / either if either else 0
        assert ellipse_iou([ellipse], [box], image_size=(30, 25))[0, 0] == pytest.approx(expected, abs=1e-12)


def test_nothing_inside_the_photo_overlaps_nothing():
    assert ellipse_iou([[5, 4, 0, -50, -50]], [[-60, -60, -40, -40]], image_size=(20, 20)) == 0
    assert ellipse_iou(np.zeros((0, 5)), np.zeros((3, 4))).shape == (0, 3)
    assert ellipse_iou([[5, 4, 0, 9, 9]], np.zeros((0, 4))).shape == (1, 0)


def test_one_to_one_matching_beats_best_first():
    # Detection 0 overlaps both faces; best-first gives it face 0 and leaves face 1 to nobody.
    iou = np.array([[0.8, 0.7], [0.75, 0.0]])
    rows = match_photo(iou, np.array([0.9, 0.8]))
    np.testing.assert_allclose(rows, [[0.9, 1, 0.8, 0], [0.8, 1, 0.65, 0]])


def test_an_overlap_of_exactly_one_half_is_a_false_positive_with_continuous_credit():
    assert match_photo(np.array([[0.5]]), np.array([0.9])).tolist() == [[0.9, 0, 0.5, 1]]


def brute_force(annotations, detections, threshold):
    """Counts at one threshold, over all one-to-one matchings."""
    faces_found, overlaps, false = 0, 0.0, 0
    for name, ellipses in annotations.items():
        each = detections.get(name)
        valid = [] if each is None else [i for i, score in enumerate(each.scores) if score >= threshold]
        if not valid:
            continue
        iou = ellipse_iou(ellipses, each.boxes[valid])
        size = min(iou.shape)
        options = (
            [(row, column) for row, column in zip(rows, columns, strict=True)]
            for rows in itertools.permutations(range(iou.shape[0]), size)
            for columns in itertools.combinations(range(iou.shape[1]), size)
        )
        best = max(options, key=lambda pairs: sum(iou[pair] for pair in pairs))
        faces_found += sum(iou[pair] > 0.5 for pair in best)
        overlaps += sum(iou[pair] for pair in best)
        false += len(valid) - sum(iou[pair] > 0.5 for pair in best)
    return faces_found, overlaps, false


def random_fddb(seed, num_images=6):
    rng = np.random.default_rng(seed)
    annotations, detections = {}, {}
    for index in range(num_images):
        centers = rng.uniform(20, 80, (rng.integers(1, 4), 2))
        ellipses = np.concatenate(
            [rng.uniform(14, 20, (len(centers), 1)), rng.uniform(8, 13, (len(centers), 1)),
             rng.uniform(1, 2, (len(centers), 1)), centers], axis=1
        )  # fmt: skip
        annotations[f"2002/p{index}"] = ellipses
        if index == 3:
            continue
        boxes = ellipses_to_boxes(ellipses[rng.integers(0, len(ellipses), 4)]) + rng.normal(0, 4, (4, 4))
        detections[f"2002/p{index}"] = found(boxes, rng.integers(1, 5, 4) / 5)
    return annotations, detections


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_equals_brute_force_at_every_threshold(seed):
    annotations, detections = random_fddb(seed)
    curve = roc(annotations, detections)
    assert curve.thresholds.tolist() == sorted({score for d in detections.values() for score in d.scores}, reverse=True)
    for index, threshold in enumerate(curve.thresholds):
        faces_found, overlaps, false = brute_force(annotations, detections, threshold)
        assert curve.discrete[index] * curve.num_faces == pytest.approx(faces_found)
        assert curve.continuous[index] * curve.num_faces == pytest.approx(overlaps)
        assert curve.false_positives[index] == false


def test_rates_are_read_at_the_allowed_false_positives():
    ellipses = [[20, 15, math.pi / 2, 50, 50]]
    box, empty = ellipses_to_boxes(ellipses)[0], [200, 200, 210, 210]
    curve = roc({"a": ellipses}, {"a": found([empty, empty, box], [0.9, 0.8, 0.7])})
    assert curve.at(1)[0] == 0
    assert curve.at(2)[0] == 1
    assert roc({"a": ellipses}, {}).at(1000) == (0, 0)
    with pytest.raises(ValueError, match="no annotation for 'b'"):
        roc({"a": ellipses}, {"b": found([box], [1])})


@pytest.fixture
def fddb_files(tmp_path):
    annotations, detections = random_fddb(0, num_images=10)
    names = list(annotations)
    (tmp_path / "FDDB-folds").mkdir()
    for fold in range(10):
        rows = "\n".join(" ".join(map(repr, map(float, row))) + "  1" for row in annotations[names[fold]])
        path = tmp_path / "FDDB-folds" / f"FDDB-fold-{fold + 1:02d}-ellipseList.txt"
        path.write_text(f"{names[fold]}\n{len(annotations[names[fold]])}\n{rows}\n")
    lines = []
    for name, one in detections.items():
        lines += [name, str(len(one.scores))]
        for (x1, y1, x2, y2), score in zip(one.boxes, one.scores, strict=True):
            lines.append(f"{x1:.10g} {y1:.10g} {x2 - x1:.10g} {y2 - y1:.10g} {float(score)!r}")
    (tmp_path / "detections.txt").write_text("\n".join(lines) + "\n")
    return tmp_path, annotations, detections


def test_files_come_back_as_written(fddb_files):
    directory, annotations, detections = fddb_files
    folds = read_folds(directory / "FDDB-folds")
    assert len(folds) == 10
    np.testing.assert_array_equal(folds[2]["2002/p2"], annotations["2002/p2"])
    back = read_detection_list(directory / "detections.txt")
    np.testing.assert_allclose(back["2002/p1"].boxes, detections["2002/p1"].boxes, atol=1e-6)
    result, curve = evaluate_fddb(folds, detections)
    assert result["discrete"] == curve.discrete[-1] > 0
    assert len(result["folds"]["discrete"]) == 10


def test_broken_files_are_named(fddb_files):
    directory, _, _ = fddb_files
    (directory / "cut.txt").write_text("a\n2\n1 2 3 4 0.5\n")
    with pytest.raises(ValueError, match=r"cut\.txt:1"):
        read_detection_list(directory / "cut.txt")
    (directory / "FDDB-folds" / "FDDB-fold-07-ellipseList.txt").unlink()
    with pytest.raises(FileNotFoundError, match="FDDB-fold-07"):
        read_folds(directory / "FDDB-folds")


def test_the_command_scores_a_result_file(fddb_files, capsys):
    pytest.importorskip("matplotlib")
    directory, annotations, _ = fddb_files
    parser = argparse.ArgumentParser()
    command("fddb").add_arguments(parser)
    words = ["--ground-truth", str(directory / "FDDB-folds"), "--detections", str(directory / "detections.txt")]
    assert command("fddb").run(parser.parse_args([*words, "--plots", str(directory / "plots")])) == 0
    assert "at 1000 false" in capsys.readouterr().out
    assert (directory / "plots" / "roc.png").exists()
    command("fddb").run(parser.parse_args([*words, "--json", "-", "--overlap", "tight"]))
    result = json.loads(capsys.readouterr().out)
    assert result["faces"] == sum(map(len, annotations.values())) and result["overlap"] == "tight"


def test_the_command_runs_a_detector_on_the_photos(fddb_files, sample_photo, capsys):
    """The photo's face against an ellipse that fills its box, in the one photo of ten that has a face."""
    directory, annotations, _ = fddb_files
    photos = directory / "originalPics"
    photos.mkdir()
    words = ["evaluate", "fddb", "--ground-truth", str(directory / "FDDB-folds"), "--images", str(photos), "--quiet"]
    words += ["--detections", str(directory / "out"), "--preset", "mobilenet025_wider"]
    assert main(words) == 2
    assert "none of the 10 photos is in" in capsys.readouterr().err
    first, *others = annotations
    fold = directory / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt"
    fold.write_text(f"{first}\n1\n60.5 47.5 {math.pi / 2} 225.5 118.5  1\n")
    for name in annotations:
        path = photos / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        if name == first:
            path.write_bytes(sample_photo.read_bytes())
        else:
            Image.new("RGB", (40, 30)).save(path)
    assert main([*words, "--json", str(directory / "result.json")]) == 0
    out = capsys.readouterr().out
    assert "FDDB, 10 photos" in out
    assert "false positives: a lower --score-threshold could find more faces" in out
    result = json.loads((directory / "result.json").read_text())
    assert result["clipped_to_photos"] is True
    assert result["folds"]["discrete"] == [1.0] + [0.0] * len(others)
    assert result["folds"]["continuous"][0] > 0.7
