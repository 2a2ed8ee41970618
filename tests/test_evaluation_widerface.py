"""Is our WIDER FACE score the official tool's, step by step, and never a crash?"""

import math
import tracemalloc

import numpy as np
import pytest
from evaluation_data import DATA, found, ground_truth, needs_ground_truth, random_set

from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.evaluation.detection_files import ImageDetections
from retinaface_tf.evaluation.widerface import count, evaluate_widerface, judge, match, subset_ap

SCORE_KINDS = ["ties", "spread", "equal", "outside", "above one", "below zero"]


def literal_ap(faces, detections, subset, *, published_python=False, integer_boxes=False, one=1.0):
    """The tool's algorithm again, one number at a time, with nothing shared with the library."""
    low, high = (1.0, 0.0) if published_python else (math.inf, -math.inf)
    for each in detections.values():
        for score in each.scores:
            low, high = min(low, score), max(high, score)
    proposals, hits = [0] * 1000, [0] * 1000
    for index, name in enumerate(faces.names):
        members = [face for face in range(len(faces.image)) if faces.image[face] == index]
        if name not in detections or not members or len(detections[name].scores) == 0:
            continue
        rows = [
            (list(map(float, box)), (float(score) - low) / (high - low) if high > low else 1.0)
            for box, score in zip(detections[name].boxes, detections[name].scores, strict=True)
        ]
        if integer_boxes:
            rows = [([float(int(round(value, 6))) for value in box], score) for box, score in rows]
        if not published_python:
            rows = sorted(rows, key=lambda row: -row[1])
        state, is_proposal, found_so_far = {}, [], []
        for box, _ in rows:
            best, best_iou = None, -1.0
            for face in members:
                truth = faces.boxes[face]
                width = min(box[2], truth[2]) - max(box[0], truth[0]) + one
                height = min(box[3], truth[3]) - max(box[1], truth[1]) + one
                shared = width * height if width > 0 and height > 0 else 0.0
                union = (box[2] - box[0] + one) * (box[3] - box[1] + one)
                union += (truth[2] - truth[0] + one) * (truth[3] - truth[1] + one) - shared
                iou = shared / union if union > 0 else 0.0
                if iou > best_iou:
                    best, best_iou = face, iou
            ignored = best_iou >= 0.5 and not faces.subsets[subset][best]
            if best_iou >= 0.5 and not ignored:
                state[best] = 1
            is_proposal.append(not ignored)
            found_so_far.append(sum(state.values()))
        for t in range(1, 1001):
            passing = [position for position, row in enumerate(rows) if row[1] >= 1 - t / 1000]
            if passing:
                proposals[t - 1] += sum(is_proposal[: passing[-1] + 1])
                hits[t - 1] += found_so_far[passing[-1]]
    total = int(faces.subsets[subset].sum())
    if total == 0:
        return math.nan
    recall = [0.0] + [hit / total for hit in hits] + [1.0]
    precision = [0.0] + [h / p if p else 0.0 for h, p in zip(hits, proposals, strict=True)] + [0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


@pytest.mark.parametrize("published_python", [False, True])
@pytest.mark.parametrize("scores", SCORE_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_literal_loop(seed, scores, published_python):
    faces, detections = random_set(seed, scores=scores)
    ours = evaluate_widerface(faces, detections, published_python=published_python)
    for subset, value in ours.items():
        expected = literal_ap(faces, detections, subset, published_python=published_python)
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"integer_boxes": True}, {"plus_one": False}])
def test_the_other_arithmetics_equal_the_literal_loop_too(options):
    faces, detections = random_set(7, scores="spread")
    literal = {"integer_boxes": options.get("integer_boxes", False), "one": float(options.get("plus_one", True))}
    ours = evaluate_widerface(faces, detections, **options)
    plain = evaluate_widerface(faces, detections)
    for subset, value in ours.items():
        np.testing.assert_allclose(value, literal_ap(faces, detections, subset, **literal), rtol=0, atol=1e-12)
    assert ours != plain


def test_the_order_matters_only_to_the_published_python_arithmetic():
    faces, detections = random_set(3, scores="spread")
    backwards = {name: ImageDetections(each.boxes[::-1], each.scores[::-1], None) for name, each in detections.items()}
    assert evaluate_widerface(faces, backwards) == evaluate_widerface(faces, detections)
    python = {"published_python": True}
    assert evaluate_widerface(faces, backwards, **python) != evaluate_widerface(faces, detections, **python)


def test_one_of_two_faces_found_first_and_one_false_alarm():
    faces = ground_truth({"e/a": [[0, 0, 9, 9], [50, 50, 59, 59]]})
    detections = {"e/a": found([[0, 0, 9, 9], [90, 90, 99, 99]], [0.9, 0.1])}
    assert evaluate_widerface(faces, detections) == {"all": 0.5}  # precision 1 at recall 1/2, nothing beyond


def test_a_false_alarm_above_the_face_halves_the_precision():
    faces = ground_truth({"e/a": [[0, 0, 9, 9]]})
    detections = {"e/a": found([[0, 0, 9, 9], [90, 90, 99, 99]], [0.1, 0.9])}
    assert evaluate_widerface(faces, detections) == {"all": 0.5}


def test_an_ignored_face_removes_the_detection_and_a_duplicate_is_a_false_alarm():
    faces = ground_truth({"e/a": [[0, 0, 9, 9], [50, 50, 59, 59]]}, some=[True, False])
    boxes = [[50, 50, 59, 59], [0, 0, 9, 9], [1, 0, 9, 9]]
    matching = match(faces, {"e/a": found(boxes, [0.9, 0.8, 0.7])})
    proposal, hit = judge(matching, faces.subsets["some"])
    assert proposal.tolist() == [False, True, True]
    assert hit.tolist() == [False, True, False]


def test_one_pixel_more_lets_a_zero_area_face_be_found():
    faces = ground_truth({"e/a": [[5, 5, 5, 5]]})
    detections = {"e/a": found([[5, 5, 5, 5]], [0.9])}
    assert evaluate_widerface(faces, detections) == {"all": 1.0}
    assert evaluate_widerface(faces, detections, plus_one=False) == {"all": 0.0}


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    faces = ground_truth({"e/a": [[0, 0, 9, 9]]}, some=[True], none=[False])
    for detections in ({}, {"e/a": found([], [])}):
        ap = evaluate_widerface(faces, detections)
        assert ap["some"] == 0
        assert math.isnan(ap["none"])


def test_counts_per_image_add_up():
    faces, detections = random_set(5)
    matching = match(faces, detections)
    for each, total in zip(
        count(matching, faces.subsets["hard"], per_image=True), count(matching, faces.subsets["hard"]), strict=True
    ):
        np.testing.assert_array_equal(each.sum(axis=0), total)


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ({"e/b": found([[0, 0, 1, 1]], [1])}, "no photo 'e/b'"),
        ({"e/a": found([[0, 0, 1, 1]], [1, 2])}, r"expected boxes \[N, 4\]"),
        ({"e/a": found([[0, 0, 1, np.nan]], [1])}, "finite"),
        ({"e/a": found([[0, 0, 1, 1]], [np.inf])}, "finite"),
    ],
)
def test_bad_detections_are_named(detections, message):
    with pytest.raises(ValueError, match=message):
        match(ground_truth({"e/a": [[0, 0, 9, 9]]}), detections)


def test_the_whole_validation_set_takes_little_memory():
    rng = np.random.default_rng(0)
    corners = rng.random((3226, 162, 2)) * 1000
    boxes = np.concatenate([corners, corners + 10 + rng.random((3226, 162, 2)) * 90], axis=2)
    faces = ground_truth({f"e/{index}": each[:12] for index, each in enumerate(boxes)})
    detections = {f"e/{index}": found(each[6:], rng.random(156)) for index, each in enumerate(boxes)}
    tracemalloc.start()
    matching = match(faces, detections)
    values = [subset_ap(matching, rng.random(len(faces.boxes)) < share) for share in (0.2, 0.4, 1)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e9
    assert min(values) > 0


@needs_ground_truth
def test_the_ground_truth_fed_back_gives_the_published_fixed_points():
    faces = read_wider_ground_truth(DATA / "wider_ground_truth")
    assert [int(kept.sum()) for kept in faces.subsets.values()] == [7211, 13319, 31958]
    assert (len(faces.names), len(faces.boxes)) == (3226, 39708)
    offsets = faces.offsets()
    detections = {
        name: found(faces.boxes[start:stop], np.ones(stop - start))
        for name, start, stop in zip(faces.names, offsets, offsets[1:], strict=False)
    }
    ap = evaluate_widerface(faces, detections)
    assert [round(value, 6) for value in ap.values()] == [0.999861, 0.999925, 0.999875]
