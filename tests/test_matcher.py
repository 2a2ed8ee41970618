"""Which face each anchor answers for: the graph against loops, one image against many, one chunk against several."""

import numpy as np
import numpy_recipe
import pytest
import tensorflow as tf

from retinaface_tf.geometry import matcher
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.matcher import IGNORED, NEGATIVE, match_by_atss, match_by_iou

GENERATOR = AnchorGenerator({"P3": (8, 16, 24), "P4": (32,), "P5": (48, 64)})  # levels that differ in their anchors
ANCHORS = np.array(GENERATOR(56, 40))
COUNTS = GENERATOR.level_counts(56, 40)
PAPER = {"positive_iou": 0.5, "negative_iou": 0.3, "forced_iou": None}


def random_faces(seed, number=6):
    """Faces of every size, some outside or across the edge, one there twice, padding in between."""
    random = np.random.default_rng(seed)
    low = random.uniform(-20, 45, (number, 2))
    faces = np.concatenate([low, low + random.uniform(2, 50, (number, 2))], axis=1)
    faces[1] = faces[0]
    faces[2] = 0
    faces[3] = [900, 900, 930, 940]
    return faces.astype("float32")


BATCH = np.stack([random_faces(seed) for seed in range(5)])


def by_thresholds(faces, anchors, **options):
    names = {"positive_iou": "positive", "negative_iou": "negative", "forced_iou": "forced"}
    return numpy_recipe.match_by_iou(faces, anchors, **{names[k]: v for k, v in options.items()})


@pytest.mark.parametrize("options", [{}, PAPER, {**PAPER, "forced_iou": 0.1}], ids=["bb6", "paper", "paper, forced"])
def test_thresholds_against_loops(options):
    match = match_by_iou(ANCHORS, BATCH, **options).numpy()
    assert match.dtype == np.int32
    np.testing.assert_array_equal(match, [by_thresholds(faces, ANCHORS, **options) for faces in BATCH])
    assert (match >= 0).sum() > 10
    assert (match == IGNORED).any() == ("positive_iou" in options)


@pytest.mark.parametrize("options", [{}, {"top_k": 4, "forced_iou": 0.05}, {"top_k": 1000}])
def test_atss_against_loops(options):
    match = match_by_atss(ANCHORS, BATCH, COUNTS, **options).numpy()
    names = {"top_k": "top_k", "forced_iou": "forced"}
    expected = [
        numpy_recipe.match_by_atss(faces, ANCHORS, COUNTS, **{names[k]: v for k, v in options.items()})
        for faces in BATCH
    ]
    np.testing.assert_array_equal(match, expected)
    assert (match >= 0).sum() > 5
    assert match.min() == NEGATIVE


def test_rules_by_eye():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]], "float32")
    faces = [[[0, 0, 10, 10], [0, 0, 10, 10], [100, 0, 104, 10], [100, 0, 103, 10], [200, 0, 201, 10]]]
    match = match_by_iou(anchors, np.array(faces, "float32"))[0].numpy()
    # Both take the first of two equal anchors, where the later face stays; the second anchor has the first face.
    assert match[:2].tolist() == [1, 0]
    assert match[2] == 3  # overlaps of 0.4 and 0.3: the later face is forced, over the one that overlaps more
    assert match[3] == NEGATIVE  # an overlap of 0.1 is under the floor
    band = match_by_iou(anchors, np.array(faces, "float32"), 0.5, 0.3, None)[0].numpy()
    assert band.tolist() == [0, 0, IGNORED, NEGATIVE]


def test_thresholds_are_reached_at_equality():
    anchors = np.array([[0, 0, 8, 8], [0, 0, 8, 8]], "float32")
    half = np.array([[[0, 0, 4, 8]]], "float32")  # overlaps of exactly 0.5
    assert match_by_iou(anchors, half, 0.5, 0.5, None)[0].numpy().tolist() == [0, 0]
    assert match_by_iou(anchors, half, 0.75, 0.5, None)[0].numpy().tolist() == [IGNORED, IGNORED]
    assert match_by_iou(anchors, half, 0.75, 0.75, 0.5)[0].numpy().tolist() == [0, NEGATIVE]


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("forced", [None, 0.2])
def test_no_faces_and_only_padding(number, forced):
    boxes = np.zeros((2, number, 4), "float32")
    assert (match_by_iou(ANCHORS, boxes, forced_iou=forced).numpy() == NEGATIVE).all()
    assert (match_by_atss(ANCHORS, boxes, COUNTS, forced_iou=forced).numpy() == NEGATIVE).all()
    assert match_by_iou(ANCHORS, boxes).shape == (2, len(ANCHORS))


def test_boxes_without_area_or_the_wrong_way_round_are_padding():
    boxes = np.array([[[10, 10, 10, 30], [30, 30, 10, 10], [5, 5, 5, 5], [30, 5, 10, 25]]], "float32")
    assert (match_by_iou(ANCHORS, boxes, forced_iou=1e-6).numpy() == NEGATIVE).all()
    assert (match_by_atss(ANCHORS, boxes, COUNTS, forced_iou=1e-6).numpy() == NEGATIVE).all()


def test_faces_outside_have_no_anchor():
    boxes = np.array([[[500, 500, 520, 520], [-90, -90, -60, -60]]], "float32")
    assert (match_by_iou(ANCHORS, boxes).numpy() == NEGATIVE).all()
    assert (match_by_atss(ANCHORS, boxes, COUNTS, forced_iou=0.2).numpy() == NEGATIVE).all()


def crowd(number, side, seed=0):
    random = np.random.default_rng(seed)
    low = random.uniform(0, side - 10, (2, number, 2))
    return np.concatenate([low, low + random.uniform(4, 40, (2, number, 1))], axis=-1).astype("float32")


def test_chunks_of_a_crowd_give_what_one_chunk_gives(monkeypatch):
    anchors, counts = np.array(GENERATOR(80, 80)), GENERATOR.level_counts(80, 80)
    boxes = crowd(1000, 80)
    boxes[0, 500:600] = boxes[0, :100]  # equals in different chunks: still the first, or for the forced the last
    boxes[1, 300:900] = 0
    whole = {}
    for pairs in (1 << 30, 70 * 2 * len(anchors)):
        monkeypatch.setattr(matcher, "MAX_PAIRS", pairs)
        matches = {
            "bb6": match_by_iou(anchors, boxes),
            "paper": match_by_iou(anchors, boxes, **PAPER),
            "atss": match_by_atss(anchors, boxes, counts, forced_iou=0.2),
        }
        for name, match in matches.items():
            np.testing.assert_array_equal(match, whole.setdefault(name, match.numpy()))
    assert (whole["bb6"] >= 0).sum() > 200


def test_memory_does_not_grow_with_the_crowd(monkeypatch):
    """No tensor of the loop holds more pairs than allowed: seen by tracing the overlaps that are asked for."""
    sizes = []
    real = matcher.pairwise_iou
    monkeypatch.setattr(matcher, "MAX_PAIRS", 3 * 2 * len(ANCHORS))

    def watched(boxes_a, boxes_b):
        iou = real(boxes_a, boxes_b)
        sizes.append(tuple(iou.shape))
        return iou

    monkeypatch.setattr(matcher, "pairwise_iou", watched)
    match_by_iou(ANCHORS, crowd(40, 56))
    assert len(sizes) == 14  # 40 faces by three
    assert max(int(np.prod(size)) for size in sizes) <= matcher.MAX_PAIRS


@pytest.mark.parametrize(
    "match",
    [
        lambda anchors, boxes: match_by_iou(anchors, boxes),
        lambda anchors, boxes: match_by_iou(anchors, boxes, **PAPER),
        lambda anchors, boxes: match_by_atss(anchors, boxes, COUNTS, forced_iou=0.2),
    ],
    ids=["bb6", "paper", "atss"],
)
class TestTheSameEverywhere:
    def test_batched_is_single(self, match):
        single = [match(ANCHORS, faces[None])[0].numpy() for faces in BATCH]
        np.testing.assert_array_equal(match(ANCHORS, BATCH), single)

    def test_padding_changes_nothing(self, match):
        padded = np.pad(BATCH, [(0, 0), (0, 7), (0, 0)])
        np.testing.assert_array_equal(match(ANCHORS, padded), match(ANCHORS, BATCH))

    def test_anchors_of_each_image(self, match):
        shifts = np.array([0, 3, -5, 11, 0.5], "float32")[:, None, None]
        own = match(ANCHORS[None] + shifts, BATCH)
        single = [
            match(ANCHORS + shift, faces[None])[0].numpy() for shift, faces in zip(shifts[:, 0], BATCH, strict=True)
        ]
        np.testing.assert_array_equal(own, single)
        np.testing.assert_array_equal(match(np.tile(ANCHORS, (5, 1, 1)), BATCH), match(ANCHORS, BATCH))

    def test_eager_is_graph_is_data_set(self, match):
        expected = match(ANCHORS, BATCH).numpy()
        open_shapes = [tf.TensorSpec([None, 4]), tf.TensorSpec([None, None, 4])]
        graph = tf.function(match, input_signature=open_shapes, autograph=False)
        np.testing.assert_array_equal(graph(ANCHORS, BATCH), expected)
        assert (graph(ANCHORS, np.zeros((3, 0, 4), "float32")).numpy() == NEGATIVE).all()
        dataset = tf.data.Dataset.from_tensor_slices(BATCH).map(lambda faces: match(ANCHORS, faces[None])[0])
        np.testing.assert_array_equal(np.stack(list(dataset.as_numpy_iterator())), expected)


def test_every_face_over_the_floor_has_an_anchor():
    """Unless a later face took the one that it wanted."""
    random = np.random.default_rng(3)
    centers = np.stack(np.meshgrid(np.arange(20, 300, 70), np.arange(20, 300, 70)), axis=-1).reshape(1, -1, 2)
    side = random.uniform(6, 60, (1, 16, 1))
    boxes = np.concatenate([centers - side / 2, centers + side / 2], axis=-1).astype("float32")
    anchors = np.array(GENERATOR(320, 320))
    best = numpy_recipe.iou_table(boxes[0], anchors).max(axis=1)
    assert best.min() > 0.2
    for match in (match_by_iou(anchors, boxes), match_by_iou(anchors, boxes, 0.9, 0.3, 0.2)):
        assert set(range(16)) <= set(match[0].numpy().tolist())
