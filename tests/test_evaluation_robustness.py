"""Do detections in a corrupted photo come back to the right pixels, and does the table compare like with like?"""

import argparse
import json

import numpy as np
import pytest
from evaluation_data import command, detect_bright, found, ground_truth, use_detector
from PIL import Image

from retinaface_tf.evaluation.protocols import detect_with
from retinaface_tf.evaluation.robustness import (
    CORRUPTIONS,
    Corruption,
    format_robustness,
    report_robustness,
    run_corruptions,
)

BOX = [40, 60, 140, 120]


@pytest.fixture
def image():
    image = np.zeros((200, 400, 3), np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return image


def detect_lit(image):
    """Where rows and columns are bright on average: noise does not move it."""
    columns, rows = (np.flatnonzero(image[..., 0].mean(axis=axis) > 45) for axis in (0, 1))
    return found([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], [0.9])


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_boxes_come_back_to_the_photo(image, corruption):
    (view,) = corruption.views(image)
    assert view.dtype == np.uint8 and view.flags["C_CONTIGUOUS"]
    assert corruption.kind == "none" or view.shape != image.shape or (view != image).any()
    np.testing.assert_allclose(detect_with(corruption, detect_lit, image).boxes, [BOX], atol=2)


@pytest.mark.parametrize(("degrees", "corner"), [(90, [140, 60]), (180, [140, 120]), (270, [40, 120])])
def test_landmarks_turn_with_the_photo(image, degrees, corner):
    # The detector puts its first landmark in the upper left corner of what it sees.
    result = detect_with(Corruption("rotation", degrees), detect_bright, image)
    np.testing.assert_allclose(result.landmarks[0, 0], corner)


def test_turning_is_counter_clockwise(image):
    assert Corruption("rotation", 90).views(image)[0][-50, 80, 0] == 255  # x = 50 is 50 rows above the bottom


def test_noise_is_the_same_each_time_and_as_strong_as_said():
    gray = np.full((100, 100, 3), 128, np.uint8)
    corruption = Corruption("noise", 20)
    first, second = corruption.views(gray)[0], corruption.views(gray)[0]
    np.testing.assert_array_equal(first, second)
    assert first.astype(float).std() == pytest.approx(20, rel=0.03)


@pytest.mark.parametrize(("kind", "strength"), [("rotation", 45), ("jpeg", 0), ("noise", -1), ("fog", 1), ("none", 3)])
def test_what_does_not_exist_is_refused(kind, strength):
    with pytest.raises(ValueError, match="no corruption"):
        Corruption(kind, strength)


def sees_only_wide_boxes(image):
    """A detector that fails on photos turned by 90 or 270 degrees."""
    result = detect_bright(image)
    return result if image.shape[1] > image.shape[0] else result._replace(boxes=result.boxes + 1000)


def test_the_table_shows_what_was_lost(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    faces = ground_truth({"a": [BOX], "b": [BOX]}).only(["a"])
    corruptions = (Corruption("none"), Corruption("rotation", 180), Corruption("rotation", 90))
    run_corruptions(
        sees_only_wide_boxes, {"a": tmp_path / "a.png"}, tmp_path / "out", corruptions=corruptions, progress=False
    )
    report = report_robustness(faces, tmp_path / "out", corruptions=corruptions, resamples=5)
    assert [row["ap"]["all"] for row in report["corruptions"]] == [1, 1, 0]
    assert [row["change"] for row in report["corruptions"]] == [0, 0, -1]
    assert {row["from"]: row["ap"] for row in report["by_height"]}[50] == 1  # of the photo as it is
    text = format_robustness(report)
    assert "rotation 90" in text and "-100.00" in text and "50 to 100 px" in text


def test_the_command_runs_and_draws(image, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "faces.csv").write_text("file,x1,y1,x2,y2\na.png," + ",".join(map(str, BOX)) + "\n")
    use_detector(monkeypatch, detect_bright)
    parser = argparse.ArgumentParser()
    command("robustness").add_arguments(parser)
    words = ["--ground-truth", str(tmp_path / "faces.csv"), "--detections", str(tmp_path / "out"), "--kinds", "jpeg"]
    with pytest.raises(FileNotFoundError, match="no result files"):
        command("robustness").run(parser.parse_args(words))
    running = ["--images", str(tmp_path), "--preset", "any", "--quiet", "--plots", str(tmp_path / "plots")]
    assert command("robustness").run(parser.parse_args([*words, *running])) == 0
    assert "jpeg 5" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"corruptions.png", "faces.png"}
    command("robustness").run(parser.parse_args([*words, "--json", "-"]))
    rows = json.loads(capsys.readouterr().out)["corruptions"]
    assert [row["name"] for row in rows] == ["none", "jpeg 50", "jpeg 20", "jpeg 10", "jpeg 5"]
