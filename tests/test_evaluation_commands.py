"""Do the evaluation commands print what was asked for, and only one line when they cannot?"""

import argparse
import json

import numpy as np
import pytest
from evaluation_data import DATA, found, needs_ground_truth, needs_samples, use_detector
from PIL import Image

from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.cli.evaluate_widerface import parse_shard
from retinaface_tf.cli.main import COMMANDS
from retinaface_tf.evaluation.detection_files import write_detection_file

GROUND_TRUTH = DATA / "wider_ground_truth"


def run(name, *words):
    """One command from its words, as the command line calls it."""
    parser = argparse.ArgumentParser()
    module = COMMANDS["evaluate"].kinds[name].load()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def answers_as_detections(tmp_path):
    """The ground truth of every 40th photo, as result files with scores that fall."""
    faces = read_wider_ground_truth(GROUND_TRUTH)
    for name in faces.names[::40]:
        boxes = faces.only([name]).boxes
        write_detection_file(tmp_path / "out" / f"{name}.txt", found(boxes, np.linspace(0.9, 0.5, len(boxes))))
    return tmp_path / "out"


@needs_ground_truth
def test_widerface_scores_result_files(answers_as_detections, capsys):
    words = ["--detections", answers_as_detections, "--ground-truth", GROUND_TRUTH, "--only-present"]
    assert run("widerface", *words, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 81
    assert min(result["ap"].values()) > 0.99
    assert run("widerface", *words, "--bootstrap", "20") == 0
    text = capsys.readouterr().out
    assert text.startswith("WIDER FACE, 81 photos") and "95 % interval" in text
    # Without --only-present, the other 3,145 photos are missed, as in the official tool.
    run("widerface", *words[:-1], "--json", "-")
    assert json.loads(capsys.readouterr().out)["ap"]["hard"] < 0.1


@needs_ground_truth
def test_widerface_draws_its_curves(answers_as_detections, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["--detections", answers_as_detections, "--ground-truth", GROUND_TRUTH, "--only-present"]
    run("widerface", *words, "--plots", tmp_path / "plots", "--json", tmp_path / "result.json")
    assert "Easy" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["photos"] == 81
    for name in ("precision_recall", "ap_by_height", "ap_by_event"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert picture.width > 400


@needs_ground_truth
@needs_samples
def test_widerface_runs_a_detector_over_photos(tmp_path, monkeypatch, capsys):
    use_detector(monkeypatch, lambda image: found([[0, 0, 50, 50]], [0.5]))
    words = ["--detections", tmp_path / "out", "--ground-truth", GROUND_TRUTH, "--images", DATA / "wider_val_samples"]
    run("widerface", *words, "--preset", "any", "--shard", "2/2", "--quiet")
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 5
    assert capsys.readouterr().out == ""
    run("widerface", *words, "--preset", "any", "--only-present", "--json", "-")
    output = capsys.readouterr()
    assert json.loads(output.out)["photos_with_a_file"] == 10
    assert "image/s" in output.err


@needs_ground_truth
def test_widerface_complains_in_one_line(tmp_path):
    for words, message in [
        (["--ground-truth", tmp_path], r"wider_face_val\.mat"),
        (["--ground-truth", GROUND_TRUTH], "no folder of detections"),
        (["--ground-truth", GROUND_TRUTH, "--preset", "x"], "need --images"),
        (["--ground-truth", GROUND_TRUTH, "--shard", "5/4"], "PART/PARTS"),
        (
            ["--ground-truth", GROUND_TRUTH, "--images", tmp_path / "x", "--model", "y"],
            "no such folder; expected the folder of the photos",
        ),
    ]:
        with pytest.raises((ValueError, OSError), match=message) as error:
            run("widerface", "--detections", tmp_path / "nowhere", *words)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", ""])
def test_a_shard_is_a_part_of_parts(text):
    assert parse_shard("2/4") == (2, 4)
    with pytest.raises(ValueError, match="PART/PARTS"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("photos --detections found", "none of the 1 photos was found"),
        ("landmarks --predictions p.csv", "has no file 'a.png'"),
    ],
)
def test_missing_photos_are_told_before_a_model_is_loaded(words, complaint, tmp_path, monkeypatch):
    def open_model(*names, **options):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("retinaface_tf.cli.options.open_model", open_model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    name, *options = words.split()
    header = "file,x1,y1,x2,y2\na.png,1,2,30,40\n" if name == "photos" else "a.png,1,1,5,1,3,3,1,5,5,5\n"
    (tmp_path / "truth.csv").write_text(header)
    model = ["--ground-truth", "truth.csv", "--images", "empty", "--preset", "mobilenet025_wider"]
    with pytest.raises(FileNotFoundError, match=complaint):
        run(name, *options, *model)
