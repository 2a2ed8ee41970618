"""`retinaface_tf.evaluate`: annotations and detections in, a report out, in whatever form they come."""

import json

import numpy as np
import pytest
from evaluation_data import found
from PIL import Image

import retinaface_tf
from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.evaluation.detection_files import write_detection_file

A, B, AWAY = [10, 10, 30, 40], [40, 10, 60, 40], [70, 50, 90, 60]


@pytest.fixture
def labels(tmp_path):
    """Two photos with a face each, `one.png` and `two.png`, as annotations and as a CSV file."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("one", "two"), start=1):
        Image.new("RGB", (100, 80), (number, 0, 0)).save(tmp_path / "photos" / f"{name}.png")
    rows = ["file,x1,y1,x2,y2", "one.png,10,10,30,40", "two.png,40,10,60,40"]
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    return join([annotate_photo("one.png", [A]), annotate_photo("two.png", [B])])


def one_of_two(image):
    """Finds the face of the first photo, and nothing but a false alarm with a lower score in the second."""
    return found([A], [0.9]) if image[0, 0, 0] == 1 else found([AWAY], [0.8])


def test_a_callable_a_dict_and_a_folder_give_the_same_report(labels, tmp_path):
    detections = {"one": found([A], [0.9]), "two": found([AWAY], [0.8])}
    for name, each in detections.items():
        write_detection_file(tmp_path / "found" / f"{name}.txt", each)
    report = retinaface_tf.evaluate(labels, detections)
    # One of two faces is found, and before any false alarm: precision 1 up to recall 0.5.
    assert (report["photos"], report["faces"], report["detections"], report["ap"]) == (2, 2, 2, 0.5)
    assert json.loads(json.dumps(report)) == report
    images = tmp_path / "photos"
    assert retinaface_tf.evaluate(labels, tmp_path / "found") == report
    assert retinaface_tf.evaluate(tmp_path / "faces.csv", one_of_two, images=images) == report
    batches = retinaface_tf.evaluate(labels, lambda many: [*map(one_of_two, many)], images=images, batch_size=2)
    assert batches == report


def test_coco_results_are_read(labels, tmp_path):
    rows = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 30], "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert retinaface_tf.evaluate(labels, tmp_path / "results.json")["ap"] == 0.5
    assert retinaface_tf.evaluate(labels, tmp_path / "results.json", only_present=True)["ap"] == 1


def test_an_interval_and_a_subset_are_reported_when_asked_for(labels):
    detections = {"one": found([A], [0.9])}
    low, high = retinaface_tf.evaluate(labels, detections, resamples=50)["interval_95"]
    assert 0 <= low <= 0.5 <= high <= 1
    with pytest.raises(ValueError, match="the subset must be one of"):
        retinaface_tf.evaluate(labels, detections, subset="hard")


def test_a_callable_needs_photos(labels):
    with pytest.raises(ValueError, match="`images` is needed if `detections` is a function"):
        retinaface_tf.evaluate(labels, one_of_two)


def test_numbers_are_those_of_a_loop(labels):
    rng = np.random.default_rng(0)
    scores = rng.random(3)
    boxes = [A, AWAY, [0, 0, 5, 5]]
    report = retinaface_tf.evaluate(labels, {"one": found(boxes, scores)})
    rank = sorted(scores, reverse=True).index(scores[0]) + 1  # detections down to the one on the face
    assert report["ap"] == pytest.approx(0.5 / rank)
