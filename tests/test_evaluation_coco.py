"""Do COCO's files come back as they went, and do its tools agree with cases done by hand?"""

import argparse
import json

import numpy as np
import pytest
from evaluation_data import command, found, ground_truth, random_set

from retinaface_tf.annotations.coco import to_coco
from retinaface_tf.annotations.read import read_annotations
from retinaface_tf.evaluation import coco
from retinaface_tf.evaluation.detection_files import write_detection_file

FACE, OTHER = [0, 0, 40, 40], [60, 0, 100, 50]


def test_ground_truth_there_and_back(tmp_path):
    faces, _ = random_set(0)
    (tmp_path / "faces.json").write_text(json.dumps(to_coco(faces, faces.subsets["easy"])))
    back = read_annotations(tmp_path / "faces.json")
    assert back.names == faces.names
    np.testing.assert_array_equal(back.boxes, faces.boxes)
    np.testing.assert_array_equal(back.image, faces.image)
    np.testing.assert_array_equal(back.subsets["all"], faces.subsets["easy"])


def test_detections_there_and_back_with_landmarks():
    points = np.arange(20.0).reshape(2, 5, 2)
    faces = ground_truth({"e/a": [FACE], "e/b": []})
    rows = coco.to_coco_detections(faces, {"e/b": found([FACE, OTHER], [0.5, 0.25], points)})
    assert rows[1]["bbox"] == [60, 0, 40, 50] and rows[0]["keypoints"][:3] == [0, 1, 2]
    back = coco.from_coco_detections(json.loads(json.dumps(rows)), {1: "e/a", 2: "e/b"})
    assert list(back) == ["e/b"]
    np.testing.assert_array_equal(back["e/b"].boxes, [FACE, OTHER])
    np.testing.assert_array_equal(back["e/b"].landmarks, points)


def test_what_is_not_a_result_list_is_named():
    with pytest.raises(ValueError, match="not a COCO result list, but an object"):
        coco.from_coco_detections({}, {1: "a"})
    with pytest.raises(ValueError, match="not a COCO result list"):
        coco.from_coco_detections([{"image_id": 9, "bbox": [1, 2, 3, 4], "score": 1}], {1: "a"})
    for wrong in ([], [1, 2, 3, float("nan")], [1, 2, 3, 10**400]):
        with pytest.raises(ValueError, match="COCO result 0: bbox"):
            coco.from_coco_detections([{"image_id": 1, "bbox": wrong, "score": 1}], {1: "a"})


@pytest.fixture(params=["faster-coco-eval", "pycocotools"])
def tool(request, monkeypatch):
    """Each of the two tools in turn, where it is installed."""
    if request.param == "pycocotools":
        pytest.importorskip("pycocotools")
        monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    else:
        pytest.importorskip("faster_coco_eval")
    return request.param


def test_coco_ap_by_hand(tool, capsys):
    faces = ground_truth({"e/a": [FACE], "e/b": [OTHER]})
    truth = to_coco(faces)
    points = np.zeros((1, 5, 2))
    # One of two faces, with 72 of 100 rows: five of ten IoU steps, precision 1 up to recall 1/2 (51 of 101 points).
    detections = coco.to_coco_detections(faces, {"e/a": found([[0, 0, 40, 28.8]], [0.9], points)})
    result = coco.coco_ap(truth, detections)
    assert result["tool"] == tool
    assert result["ap50"] == pytest.approx(51 / 101)
    assert result["ap"] == pytest.approx(51 / 101 / 2)
    assert result["ap_large"] is None
    assert result["ar"] == pytest.approx(0.25)
    assert coco.coco_ap(truth, [])["ap"] == 0
    assert capsys.readouterr().out == ""


def test_a_face_outside_the_subset_costs_nothing(tool):
    faces = ground_truth({"e/a": [FACE, OTHER]})
    detections = coco.to_coco_detections(faces, {"e/a": found([OTHER, FACE], [0.9, 0.8])})
    assert coco.coco_ap(to_coco(faces, np.array([True, False])), detections)["ap"] == pytest.approx(1)


def test_without_a_tool_the_message_says_what_to_install(monkeypatch):
    modules = __import__("sys").modules
    for name in ("faster_coco_eval", "pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):
        monkeypatch.setitem(modules, name, None)
    with pytest.raises(ValueError, match=r"retinaface-tf\[coco\]"):
        coco.coco_ap({}, [{}])


def test_a_csv_may_be_in_any_order_and_hold_more(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text(
        "label,file,x1,y1,x2,y2\nmasked,b.jpg,1,2,3,4\nbare,a.png,5,6,7,8\nbare,b.jpg,9,9,10,10\n,c.jpg,,,,\n"
    )
    faces = read_annotations(path)
    assert faces.names == ("b", "a", "c") and faces.files[1] == "a.png"
    assert faces.image.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(faces.boxes[1], [9, 9, 10, 10])
    for text, message in [
        ("file,x1\n", "expected a header"),
        ("file,x1,y1,x2,y2\na.jpg,1,2,3,x\n", "csv:2: x1 y1 x2 y2: expected 4 numbers"),
        ("file,x1,y1,x2,y2\n", "has no labeled photo"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_annotations(path)


def test_the_command_converts_and_scores(tmp_path, capsys):
    (tmp_path / "faces.csv").write_text("file,x1,y1,x2,y2\na.jpg,0,0,40,40\nb.jpg,60,0,100,50\n")
    write_detection_file(tmp_path / "out" / "a.txt", found([FACE], [0.9]))
    parser = argparse.ArgumentParser()
    command("coco").add_arguments(parser)
    words = ["--ground-truth", tmp_path / "faces.csv", "--detections", tmp_path / "out", "--no-score"]
    words += ["--write-ground-truth", tmp_path / "truth.json", "--write-detections", tmp_path / "found.json"]
    assert command("coco").run(parser.parse_args([str(word) for word in words])) == 0
    assert "2 photos, 1 detection," in capsys.readouterr().out
    pytest.importorskip("faster_coco_eval")
    words = ["--ground-truth", tmp_path / "truth.json", "--detections", tmp_path / "found.json", "--json", "-"]
    command("coco").run(parser.parse_args([str(word) for word in words]))
    assert json.loads(capsys.readouterr().out)["coco"]["ap"] == pytest.approx(51 / 101)
