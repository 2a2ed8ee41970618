"""Threshold, top-k and suppression, beside a literal loop."""

import numpy as np
import pytest
import tensorflow as tf

from retinaface_tf.geometry.decoder import DetectionDecoder

ANCHORS = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60], [90, 0, 110, 20]], "float32")


def predictions(scores, random=None):
    """Predictions that put boxes on their anchors (or near them), with these scores."""
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    logits = np.stack([np.zeros_like(scores), np.log(scores / (1 - scores))], axis=-1).astype("float32")
    shape = scores.shape
    box = np.zeros((*shape, 4)) if random is None else random.normal(size=(*shape, 4))
    landmark = np.zeros((*shape, 5, 2)) if random is None else random.normal(size=(*shape, 5, 2))
    return {"face": logits, "box": box.astype("float32"), "landmark": landmark.astype("float32")}


def decode(given, anchors=ANCHORS, windows=((0, 0, 100, 100),), score=0.5, nms=0.4, most=10, **options):
    windows = np.array(windows, "float32")
    outputs = DetectionDecoder(**options)(
        given, anchors, windows, score_threshold=score, nms_threshold=nms, max_detections=most
    )
    return {name: np.array(value) for name, value in outputs.items()}


def test_overlap_threshold_and_padding():
    found = decode(predictions([0.9, 0.8, 0.4, 0.7]))
    # The second box overlaps the first by (9 x 11) / (121 + 121 - 99) = 0.69; the third is under the threshold.
    assert found["count"].tolist() == [2]
    np.testing.assert_allclose(found["scores"][0], [0.9, 0.7] + [0] * 8, atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, :2], [[0, 0, 10, 10], [90, 0, 100, 20]], atol=1e-4)  # clipped
    np.testing.assert_allclose(found["landmarks"][0, 0], np.full((5, 2), 5), atol=1e-4)
    assert not found["boxes"][0, 2:].any()
    assert found["boxes"].shape == (1, 10, 4)
    assert found["landmarks"].shape == (1, 10, 5, 2)


def test_suppression_counts_pixels_inclusively():
    """Overlap is 0.667 by area and 0.692 with one added to widths and heights."""
    assert decode(predictions([0.9, 0.8, 0.1, 0.1]), nms=0.68)["count"] == [1]
    assert decode(predictions([0.9, 0.8, 0.1, 0.1]), nms=0.70)["count"] == [2]


def test_boxes_outside_the_photo_are_dropped():
    found = decode(predictions([0.1, 0.1, 0.9, 0.8]), windows=[(0, 0, 100, 40)])
    assert found["count"] == [1]
    np.testing.assert_allclose(found["scores"][0, 0], 0.8, atol=1e-6)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_most_detections(most):
    assert decode(predictions([0.9, 0.1, 0.8, 0.7]), most=most)["count"] == [min(most, 3)]


def test_top_k_candidates_enter():
    found = decode(predictions([0.7, 0.95, 0.9, 0.8]), top_k=2)
    np.testing.assert_allclose(found["scores"][0, :2], [0.95, 0.9], atol=1e-6)
    assert found["count"] == [2]


def test_no_candidates():
    found = decode(predictions([0.1, 0.1, 0.1, 0.1]))
    assert found["count"] == [0]
    assert not found["scores"].any()


def literal(given, anchors, window, score_threshold, nms_threshold, most):
    """The same in plain Python: one image."""
    scores = 1 / (1 + np.exp(given["face"][:, 0].astype(float) - given["face"][:, 1]))
    boxes = []
    for anchor, offset in zip(anchors.astype(float), given["box"].astype(float), strict=True):
        side = anchor[2:] - anchor[:2]
        center = (anchor[:2] + anchor[2:]) / 2 + offset[:2] * 0.1 * side
        side = side * np.exp(offset[2:] * 0.2)
        boxes.append([*(center - side / 2), *(center + side / 2)])
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = boxes[i]
        clipped = [max(x1, window[0]), max(y1, window[1]), min(x2, window[2]), min(y2, window[3])]
        if scores[i] < score_threshold or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            continue
        for j, _ in kept:
            u1, v1, u2, v2 = boxes[j]
            w, h = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            inner = max(w, 0) * max(h, 0)
            if inner / ((x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - inner) > nms_threshold:
                break
        else:
            kept.append((i, clipped))
    return [(scores[i], box) for i, box in kept[:most]]


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_literal_loop(seed):
    random = np.random.default_rng(seed)
    low = random.uniform(-10, 90, (300, 2))
    anchors = np.concatenate([low, low + random.uniform(4, 40, (300, 2))], axis=1).astype("float32")
    given = predictions(random.uniform(0.01, 0.99, (3, 300)), random=random)
    windows = [(0, 0, 100, 100), (10, 10, 60, 80), (0, 0, 1, 1)]
    found = decode(given, anchors, windows, score=0.3, nms=0.35, most=40)
    for row, window in enumerate(windows):
        expected = literal({k: v[row] for k, v in given.items()}, anchors, window, 0.3, 0.35, 40)
        assert found["count"][row] == len(expected)
        np.testing.assert_allclose(found["scores"][row, : len(expected)], [s for s, _ in expected], atol=1e-5)
        boxes = np.array([box for _, box in expected]).reshape(-1, 4)
        np.testing.assert_allclose(found["boxes"][row, : len(expected)], boxes, atol=1e-3)


def test_a_batch_equals_its_images_and_a_graph_equals_eager():
    random = np.random.default_rng(0)
    given = predictions(random.uniform(0.1, 0.9, (3, 4)), random=random)
    windows = [(0, 0, 100, 100)] * 3
    together = decode(given, windows=windows)
    for row in range(3):
        alone = decode({k: v[row : row + 1] for k, v in given.items()}, windows=windows[:1])
        for name in alone:
            np.testing.assert_allclose(alone[name][0], together[name][row], atol=1e-5)
    decoder = DetectionDecoder()
    graph = tf.function(lambda p: decoder(p, ANCHORS, np.array(windows, "float32"), max_detections=10))
    for name, value in graph({k: tf.constant(v) for k, v in given.items()}).items():
        np.testing.assert_allclose(value, together[name], atol=1e-5)


def test_config():
    decoder = DetectionDecoder(variances=(0.3, 0.4), top_k=7)
    copy = DetectionDecoder.from_config(decoder.get_config())
    assert (copy.variances, copy.top_k) == ((0.3, 0.4), 7)
