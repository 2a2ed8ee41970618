"""Do the parts of a WIDER FACE report fit the whole, and do the intervals mean what they say?"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_data import found, ground_truth, random_set

from retinaface_tf.evaluation.widerface import (
    ap_by_event,
    ap_by_flag,
    ap_by_height,
    average_precision,
    bootstrap_ap,
    draw_images,
    format_report,
    match,
    mean_ap,
    per_image_ap,
    percentile_interval,
    precision_recall,
    report_widerface,
    subset_ap,
)


@pytest.fixture
def one_tall_one_small():
    """Two photos in two events: a face of 50 px that is found, one of 8 px that is not."""
    faces = ground_truth({"0--A/a": [[0, 0, 40, 50]], "10--B/b": [[0, 0, 8, 8]]})
    faces = replace(faces, flags=np.array([[0, *[-1] * 5], [2, *[-1] * 5]]))
    return faces, match(faces, {"0--A/a": found([[0, 0, 40, 50]], [0.9])})


def test_average_precision_by_hand():
    # Precision 1 up to recall 1/2, then 2/3 at recall 1: 0.5 + 0.5 * 2/3.
    assert average_precision([0.5, 0.5, 1], [1, 0.5, 2 / 3]) == pytest.approx(5 / 6)
    assert average_precision([0, 0], [0, 0]) == 0


def test_nothing_to_find_is_nan_and_nothing_proposed_is_zero():
    precision, recall = precision_recall([0, 2], [0, 1], 4)
    assert precision.tolist() == [0, 0.5] and recall.tolist() == [0, 0.25]
    assert math.isnan(average_precision(precision_recall([1], [0], 0)[1], [0.0]))


def test_heights_events_and_flags_are_told_apart(one_tall_one_small):
    faces, matching = one_tall_one_small
    by_height = {row["from"]: (row["faces"], row["ap"]) for row in ap_by_height(faces, matching)}
    assert by_height[0] == (1, 0) and by_height[50] == (1, 1)
    assert by_height[10][0] == 0 and math.isnan(by_height[10][1])
    keep = np.ones(2, bool)
    assert ap_by_event(faces, matching, keep) == {
        "0--A": {"photos": 1, "faces": 1, "ap": 1.0},
        "10--B": {"photos": 1, "faces": 1, "ap": 0.0},
    }
    blur = ap_by_flag(faces, matching)["blur"]
    assert (blur["clear"]["ap"], blur["heavy"]["ap"], blur["normal"]["faces"]) == (1, 0, 0)
    assert subset_ap(matching, keep) == 0.5
    assert per_image_ap(faces, matching, keep) == 0.5


def test_mean_ap_counts_the_iou_steps_a_box_reaches():
    faces = ground_truth({"e/a": [[0, 0, 99, 99]]})
    matching = match(faces, {"e/a": found([[0, 0, 99, 71]], [0.9])})  # 72 of 100 rows: IoU 0.72
    assert mean_ap(matching, np.ones(1, bool)) == pytest.approx(0.5)  # 0.50 0.55 0.60 0.65 0.70


def test_one_crowded_photo_weighs_one_photo_in_the_mean_of_photos():
    crowd = [[20 * i, 0, 20 * i + 10, 10] for i in range(9)]
    faces = ground_truth({"e/one": [[0, 0, 10, 10]], "e/none": [], "e/crowd": crowd})
    matching = match(faces, {"e/one": found([[0, 0, 10, 10]], [0.9])})
    keep = np.ones(10, bool)
    assert subset_ap(matching, keep) == pytest.approx(0.1)
    assert per_image_ap(faces, matching, keep) == 0.5


def test_the_interval_holds_the_number_and_is_the_same_again():
    faces, detections = random_set(1, scores="spread", num_images=60)
    matching = match(faces, detections)
    keep = faces.subsets["hard"]
    low, high = bootstrap_ap(faces, matching, keep, resamples=300)
    assert low < subset_ap(matching, keep) < high
    assert (low, high) == bootstrap_ap(faces, matching, keep, resamples=300)
    narrow = bootstrap_ap(faces, matching, keep, resamples=300, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_a_draw_has_its_own_number_of_faces():
    crowd = [[20 * i, 0, 20 * i + 10, 10] for i in range(9)]
    faces = ground_truth({"e/one": [[0, 0, 10, 10]], "e/crowd": crowd})
    matching = match(faces, {"e/one": found([[0, 0, 10, 10]], [0.9])})
    # A quarter of the draws is the found photo twice, another quarter the crowd twice.
    assert bootstrap_ap(faces, matching, np.ones(10, bool), resamples=200) == (0, 1)


def test_photos_that_are_all_alike_leave_no_doubt():
    faces = ground_truth({f"e/{i}": [[0, 0, 9, 9], [50, 0, 59, 9]] for i in range(5)})
    matching = match(faces, {f"e/{i}": found([[0, 0, 9, 9]], [0.5]) for i in range(5)})
    assert bootstrap_ap(faces, matching, np.ones(10, bool), resamples=50) == (0.5, 0.5)


def test_draws_keep_the_number_of_photos():
    draws = draw_images(7, 100, seed=0)
    assert (draws.sum(axis=1) == 7).all() and draws.std() > 0


def test_interval_of_known_samples():
    assert percentile_interval(np.arange(101), 0.9) == pytest.approx((5, 95))
    assert all(math.isnan(end) for end in percentile_interval([np.nan]))
    with pytest.raises(ValueError, match="confidence"):
        percentile_interval([1], 95)


def test_the_report_is_json_and_says_its_arithmetic():
    faces, detections = random_set(2, scores="spread")
    report = report_widerface(faces, detections, resamples=10)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["arithmetic"], report["boxes"], report["photos"]) == ("official", "float", 12)
    assert report["ap"] != report["ap_with_integer_boxes"]
    assert sum(row["faces"] for row in report["by_height"]) == report["faces"]["all"]
    text = format_report(report)
    assert "AP, float boxes" in text and "AP, integer boxes" in text and "95 % interval" in text
    traced = report_widerface(faces, detections, published_python=True, integer_boxes=True, details=False)
    assert (traced["arithmetic"], traced["boxes"]) == ("published python", "integer")
    assert "published python arithmetic" in format_report(traced)
