"""AP on anybody's photos, and the worst cases on a picture."""

import json

import numpy as np
import pytest
from evaluation_data import found, ground_truth
from PIL import Image

from retinaface_tf.cli.main import main
from retinaface_tf.evaluation.plots import find_alarms, find_misses
from retinaface_tf.evaluation.widerface import match, subset_ap

FACES = {"a": [[0, 0, 20, 20], [40, 0, 50, 40]], "b": [[0, 0, 10, 10]], "empty": []}
FOUND = {
    "a": found([[60, 60, 80, 80], [0, 0, 20, 20], [0, 0, 20, 19], [0, 5, 20, 31]], [0.3, 0.9, 0.8, 0.7]),
    "b": found([[0, 0, 10, 10]], [0.4]),
    "empty": found([[5, 5, 9, 9]], [0.95]),
}


def test_a_false_alarm_in_a_photo_without_faces_counts():
    truth = ground_truth(FACES)
    keep = truth.subsets["all"]
    official = subset_ap(match(truth, FOUND), keep)
    ours = subset_ap(match(truth, FOUND, skip_empty_photos=False), keep)
    # By falling score: [empty .95 wrong,] .9 right, .8 and .7 wrong, .4 right, .3 wrong; of three faces two are found.
    assert official == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 4, abs=1e-6)
    assert ours == pytest.approx(1 / 3 * 1 / 2 + 1 / 3 * 2 / 5, abs=1e-6)


def test_worst_cases():
    truth = ground_truth(FACES)
    matching = match(truth, FOUND, plus_one=False, skip_empty_photos=False)
    misses = find_misses(truth, matching, truth.subsets["all"], 9)
    assert [(case.name, case.caption) for case in misses] == [("a", "40 px, no box"), ("b", "10 px, score 0.40")]
    alarms = find_alarms(truth, FOUND, matching, truth.subsets["all"], 3)
    assert [case.caption for case in alarms] == ["0.95, no label", "0.80, second box", "0.70, IoU 0.48"]
    np.testing.assert_array_equal([case.box for case in alarms], [[5, 5, 9, 9], [0, 0, 20, 19], [0, 5, 20, 31]])


def test_the_command_scores_and_draws(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    rows = ["file,x1,y1,x2,y2"]
    detections = []
    for number, (name, boxes) in enumerate(FACES.items(), 1):
        Image.new("RGB", (90, 90), (9 * number, 90, 200)).save(tmp_path / "photos" / f"{name}.png")
        rows += [f"{name}.png,{','.join(map(str, box))}" for box in boxes] or [f"{name}.png,,,,"]
        for (x1, y1, x2, y2), score in zip(FOUND[name].boxes.tolist(), FOUND[name].scores.tolist(), strict=True):
            detections.append(
                {"image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "found.json").write_text(json.dumps(detections))
    words = ["evaluate", "photos", "--ground-truth", str(tmp_path / "faces.csv")]
    words += ["--detections", str(tmp_path / "found.json"), "--bootstrap", "50", "--json", "-"]
    assert main([*words, "--worst", "4"]) == 2
    assert "--plots" in capsys.readouterr().err
    # Without a model the photos are only for drawing.
    assert main([*words, "--images", str(tmp_path / "photos"), "--plots", str(tmp_path / "plots"), "--worst", "4"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ap"] == pytest.approx(0.3, abs=1e-6) and result["faces"] == 3 and result["detections"] == 6
    assert result["interval_95"][0] <= result["ap"] <= result["interval_95"][1]
    sheet = np.asarray(Image.open(tmp_path / "plots" / "misses.png"))
    assert (sheet == (255, 120, 0)).all(-1).any() and (tmp_path / "plots" / "alarms.png").is_file()
    assert (tmp_path / "plots" / "precision_recall.png").is_file()
