"""Do the JSON and the CSV say what the documentation says?"""

import csv
import io
import json

import numpy as np

from retinaface_tf.inference import report
from retinaface_tf.inference.detections import Detections

FOUND = Detections(
    boxes=np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32),
    scores=np.array([0.9, 0.5], np.float32),
    landmarks=np.arange(20, dtype=np.float32).reshape(2, 5, 2),
    width=100,
    height=50,
)
EMPTY = Detections(np.zeros((0, 4), "f"), np.zeros(0, "f"), np.zeros((0, 5, 2), "f"), width=9, height=8)
ENTRIES = [report.entry("ä.jpg", FOUND), report.entry("none.jpg", EMPTY), report.entry("bad.jpg", error="bad.jpg: why")]


def test_json_has_the_documented_form():
    photos = json.loads(report.to_json(ENTRIES))
    assert photos[0]["file"] == "ä.jpg"
    assert (photos[0]["width"], photos[0]["height"]) == (100, 50)
    assert photos[0]["faces"][1] == {
        "box": [5, 6, 7, 8],
        "score": 0.5,
        "landmarks": [[10, 11], [12, 13], [14, 15], [16, 17], [18, 19]],
    }
    assert photos[1]["faces"] == []
    assert photos[2]["error"] == "bad.jpg: why"
    assert "faces" not in photos[2]
    assert json.loads(report.to_json([])) == []


def test_csv_has_a_row_for_each_face_and_one_for_each_photo_without():
    rows = list(csv.DictReader(io.StringIO(report.to_csv(ENTRIES))))
    assert [(row["file"], row["face"]) for row in rows] == [
        ("ä.jpg", "0"),
        ("ä.jpg", "1"),
        ("none.jpg", ""),
        ("bad.jpg", ""),
    ]
    assert (rows[1]["x2"], rows[1]["nose_x"], rows[1]["right_mouth_y"]) == ("7.0", "14.0", "19.0")
    assert rows[3]["error"] == "bad.jpg: why"
    assert None not in rows[3]  # as many values as columns
