"""What every anchor should answer: values, and weights that say which of them count."""

import keras
import numpy as np
import numpy_recipe
import pytest
import tensorflow as tf

from retinaface_tf.geometry.anchor_target import AnchorTarget, Targets
from retinaface_tf.geometry.anchors import AnchorGenerator
from retinaface_tf.geometry.box_coder import decode_boxes, decode_landmarks
from retinaface_tf.geometry.matcher import IGNORED, NEGATIVE

GENERATOR = AnchorGenerator({"P3": (8, 16), "P4": (32,)})
ANCHORS = np.array(GENERATOR(48, 40))
COUNTS = GENERATOR.level_counts(48, 40)
VARIANCES = (0.1, 0.2)
CHANGED = {
    "matching": "atss",
    "positive_iou": 0.6,
    "negative_iou": 0.4,
    "forced_iou": None,
    "top_k": 5,
    "occluded_weight": 0.25,
    "region_overlap": 0.5,
    "region_side": 8.0,
    "ignore_below": 4.0,
    "variances": (0.3, 0.5),
}


def faces_of(boxes, landmarks=None, visible=1):
    boxes = np.asarray(boxes, "float32")
    if landmarks is None:
        parts = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        landmarks = boxes[..., None, :2] + parts * (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    states = np.where((boxes[..., 2] > boxes[..., 0])[..., None], visible, -1) * np.ones(5, int)
    return {"boxes": boxes, "landmarks": np.asarray(landmarks, "float32"), "visible": states.astype("int32")}


def random_faces(images=3, number=5, seed=0):
    random = np.random.default_rng(seed)
    low = random.uniform(-5, 30, (images, number, 2))
    faces = faces_of(np.concatenate([low, low + random.uniform(5, 40, (images, number, 2))], axis=-1))
    faces["visible"] = random.integers(-1, 2, (images, number, 5)).astype("int32")
    return faces


def test_a_face_on_an_anchor_is_that_anchor():
    targets = AnchorTarget()(faces_of(ANCHORS[None, 7:8]), ANCHORS)
    assert (targets.faces[0, 7], targets.face_weights[0, 7], targets.box_weights[0, 7]) == (1, 1, 1)
    np.testing.assert_allclose(targets.boxes[0, 7], 0, atol=1e-5)
    # The nose lies at the middle and a tenth of the side below: one unit of the variance.
    np.testing.assert_allclose(targets.landmarks[0, 7, 2], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(targets.landmark_weights[0, 7], 1)


def test_values_and_weights_against_loops():
    faces = random_faces()
    faces["boxes"][1, 2] = 0
    faces["visible"][1, 2] = -1
    targets = Targets(*(np.array(t) for t in AnchorTarget(occluded_weight=0.5)(faces, ANCHORS)))
    assert targets.faces.sum() > 20
    for n in range(3):
        match = numpy_recipe.match_by_iou(faces["boxes"][n], ANCHORS)
        np.testing.assert_array_equal(targets.faces[n], match >= 0)
        np.testing.assert_array_equal(targets.box_weights[n], match >= 0)
        np.testing.assert_array_equal(targets.face_weights[n], 1)
        assert not targets.boxes[n][match < 0].any()
        assert not targets.landmarks[n][match < 0].any()
        assert not targets.landmark_weights[n][match < 0].any()
        for a in np.flatnonzero(match >= 0):
            states = faces["visible"][n, match[a]]
            box, points = numpy_recipe.encode(faces["boxes"][n, match[a]], faces["landmarks"][n, match[a]], ANCHORS[a])
            np.testing.assert_allclose(targets.boxes[n, a], box, rtol=1e-4, atol=1e-4)
            expected = np.where(states[:, None] >= 0, points, 0)
            np.testing.assert_allclose(targets.landmarks[n, a], expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(targets.landmark_weights[n, a], np.choose(states + 1, [0, 0.5, 1]))


def test_decoding_the_targets_gives_the_faces():
    faces = random_faces(1)
    targets = AnchorTarget()(faces, ANCHORS)
    match = numpy_recipe.match_by_iou(faces["boxes"][0], ANCHORS)
    positive = match >= 0
    own = {key: value[0, match[positive]] for key, value in faces.items()}
    boxes = decode_boxes(targets.boxes, ANCHORS, VARIANCES)[0].numpy()[positive]
    np.testing.assert_allclose(boxes, own["boxes"], atol=1e-3)
    landmarks = decode_landmarks(targets.landmarks, ANCHORS, VARIANCES)[0].numpy()[positive]
    known = own["visible"] >= 0
    np.testing.assert_allclose(landmarks[known], own["landmarks"][known], atol=1e-3)


def test_ignored_anchors_weigh_nothing():
    faces = random_faces(2, seed=4)
    targets = AnchorTarget(positive_iou=0.5, negative_iou=0.3, forced_iou=None)(faces, ANCHORS)
    match = [numpy_recipe.match_by_iou(boxes, ANCHORS, 0.5, 0.3, None) for boxes in faces["boxes"]]
    ignored = np.array(match) == numpy_recipe.IGNORED
    assert ignored.any()
    np.testing.assert_array_equal(targets.face_weights, ~ignored)
    for weights in (targets.faces, targets.box_weights, targets.landmark_weights):
        assert not weights.numpy()[ignored].any()


@pytest.mark.parametrize("matching", ["iou", "atss"])
@pytest.mark.parametrize("number", [0, 3])
def test_no_faces(matching, number):
    """None at all, or padding alone, with numbers in the landmarks of nobody that would show."""
    faces = faces_of(np.zeros((2, number, 4)), np.full((2, number, 5, 2), np.nan))
    targets = AnchorTarget(matching=matching)(faces, ANCHORS, level_counts=COUNTS)
    for name, value in targets._asdict().items():
        assert value.shape[:2] == (2, len(ANCHORS))
        np.testing.assert_array_equal(value, {"face_weights": 1, "match": NEGATIVE}.get(name, 0))


def test_landmarks_that_are_not_labeled_may_hold_anything():
    faces = faces_of(ANCHORS[None, 7:8])
    faces["visible"][0, 0, 1:3] = -1
    for nothing in (-1, np.nan, np.inf):
        faces["landmarks"][0, 0, 1:3] = nothing
        targets = AnchorTarget()(faces, ANCHORS)
        assert np.isfinite(targets.landmarks.numpy()).all()
        np.testing.assert_array_equal(targets.landmark_weights[0, 7], [1, 0, 0, 1, 1])


def test_a_tiny_face_has_finite_targets():
    anchors = np.array([[10, 10, 10.0005, 10.0005], [0, 0, 512, 512]], "float32")
    targets = AnchorTarget()(faces_of([[[10, 10, 10.0005, 10.0005]]]), anchors)
    assert targets.faces[0, 0] == 1
    assert all(np.isfinite(value.numpy()).all() for value in targets)


def test_atss_needs_the_levels():
    with pytest.raises(ValueError, match="level_counts"):
        AnchorTarget(matching="atss")(random_faces(), ANCHORS)


def test_each_image_with_its_own_anchors():
    faces = random_faces()
    shifts = np.array([0, 2, -3], "float32")[:, None, None]
    together = AnchorTarget()(faces, ANCHORS + shifts)
    for n in range(3):
        alone = AnchorTarget()({k: v[n : n + 1] for k, v in faces.items()}, ANCHORS + shifts[n])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[n], other[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("matching", ["iou", "atss"])
def test_eager_is_graph_is_data_set(matching):
    faces = random_faces()
    layer = AnchorTarget(matching=matching)
    expected = [np.array(value) for value in layer(faces, ANCHORS, level_counts=COUNTS)]
    open_ = {k: tf.TensorSpec([None, None, *v.shape[2:]], v.dtype) for k, v in faces.items()}
    graph = tf.function(lambda f: layer(f, ANCHORS, level_counts=COUNTS), input_signature=[open_], autograph=False)
    dataset = tf.data.Dataset.from_tensors(faces).map(lambda f: layer(f, ANCHORS, level_counts=COUNTS))
    for values in (graph(faces), next(iter(dataset))):
        assert isinstance(values, Targets)
        for value, wanted in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_symbolic_shapes():
    faces = random_faces()
    eager = AnchorTarget()(faces, ANCHORS)
    for batch in (3, None):
        symbols = {k: keras.KerasTensor((batch, *v.shape[1:]), str(v.dtype)) for k, v in faces.items()}
        symbolic = AnchorTarget()(symbols, keras.KerasTensor(ANCHORS.shape))
        assert isinstance(symbolic, Targets)
        for known, value in zip(symbolic, eager, strict=True):
            assert tuple(known.shape) == (batch, *value.shape[1:])
            assert known.dtype == value.dtype.name


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_a_policy_of_less_precision_changes_no_target(policy):
    faces = random_faces()
    offset = 1000.3  # where bfloat16 knows every fourth pixel
    faces["boxes"] += np.float32(offset)
    faces["landmarks"] += np.float32(offset)
    anchors = ANCHORS + np.float32(offset)
    expected = AnchorTarget()(faces, anchors)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        own = [AnchorTarget(), AnchorTarget.from_config(AnchorTarget().get_config())]
    finally:
        keras.config.set_dtype_policy(before)
    for layer in (*own, AnchorTarget(dtype=policy)):
        for value, wanted in zip(layer(faces, anchors), expected, strict=True):
            assert value.dtype == wanted.dtype
            np.testing.assert_array_equal(value, wanted)


def test_config():
    layer = AnchorTarget(**CHANGED)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is AnchorTarget
    for copy in (layer, again, AnchorTarget.from_config(layer.get_config())):
        for name, value in CHANGED.items():
            assert getattr(copy, name) == value != getattr(AnchorTarget(), name), name
    assert not layer.weights


def test_every_argument_has_an_effect():
    """At its other value the targets of the same faces are others."""
    faces = random_faces(4, seed=2)
    faces["ignored"] = np.tile(np.array([0, 0, 0, 0, 1], "int32"), (4, 1))
    plain = {"matching": "iou", "positive_iou": 0.4, "negative_iou": 0.3, "forced_iou": 0.2}
    others = {
        "positive_iou": 0.7,
        "negative_iou": 0.4,
        "forced_iou": None,
        "occluded_weight": 0.25,
        "region_overlap": 0.9,
        "region_side": 40.0,
        "ignore_below": 20.0,
        "variances": (0.3, 0.2),
        "matching": "atss",
    }

    def run(**options):
        targets = AnchorTarget(**options)(faces, ANCHORS, level_counts=COUNTS)
        return np.concatenate([np.ravel(value) for value in targets])

    for name, value in others.items():
        assert (run(**plain) != run(**{**plain, name: value})).any(), name
    assert (run(matching="atss") != run(matching="atss", top_k=3)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching": "IOU"}, "`matching` must be one of"),
        ({"positive_iou": 0.3, "negative_iou": 0.4}, "the first not above the second"),
        ({"positive_iou": 1.5}, "must be in"),
        ({"negative_iou": 0}, "must be in"),
        ({"forced_iou": 0}, "`forced_iou` must be None or"),
        ({"top_k": 0}, "`top_k` must be"),
        ({"occluded_weight": -1}, "`occluded_weight` must be"),
        ({"region_overlap": 0}, "`region_overlap` must be"),
        ({"region_side": -1}, "`region_side` and `ignore_below` must be"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AnchorTarget(**options)


def test_anchors_in_an_ignore_region_are_neither_positive_nor_negative():
    """Anchors of 8 pixels at stride 8: the region covers those of the first two cells of the first row."""
    faces = faces_of([[[0, 0, 16, 8], [24, 24, 32, 32]]])
    anchors = ANCHORS[::2][:30]  # the 8-pixel ones of P3, 5 a row
    assert (anchors[:2] == [[0, 0, 8, 8], [8, 0, 16, 8]]).all()
    plain = AnchorTarget(region_side=0)(faces, anchors)
    assert (plain.match[0, 0], plain.match[0, 1], plain.match[0, 18]) == (0, 0, 1)
    targets = AnchorTarget(region_side=0)({**faces, "ignored": np.array([[1, 0]])}, anchors)
    assert np.flatnonzero(targets.match[0] == IGNORED).tolist() == [0, 1]
    assert np.flatnonzero(targets.faces[0]).tolist() == [18]
    assert not targets.face_weights[0, :2].numpy().any() and not targets.box_weights[0, :2].numpy().any()
    # A face keeps its anchor, whatever region lies over it, and the others of 16 pixels about a small region go.
    both = faces_of([[[25, 25, 31, 31], [24, 24, 32, 32]]])
    targets = AnchorTarget(region_side=16)({**both, "ignored": np.array([[1, 0]])}, anchors)
    assert targets.match[0, 18] == 1 and targets.match[0, 0] == NEGATIVE
    assert AnchorTarget(ignore_below=9)(faces, anchors).match[0, 18] == IGNORED


def test_ignore_regions_in_a_crowd_of_a_thousand():
    random = np.random.default_rng(0)
    low = random.uniform(0, 320, (2, 1000, 2))
    faces = faces_of(np.concatenate([low, low + random.uniform(2, 30, (2, 1000, 2))], axis=-1))
    faces["ignored"] = (random.random((2, 1000)) < 0.9).astype("int32")
    anchors = np.array(AnchorGenerator({"P3": (16, 32), "P4": (64, 128)})(320, 320))
    got = AnchorTarget()(faces, anchors).match.numpy()
    kept = np.where(faces["ignored"][..., None] > 0, 0, faces["boxes"]).astype("float32")
    without = AnchorTarget()({**faces, "boxes": kept}, anchors).match.numpy()
    for image in range(2):
        regions = faces["boxes"][image][faces["ignored"][image] > 0]
        middle, half = (regions[:, :2] + regions[:, 2:]) / 2, np.maximum(regions[:, 2:] - regions[:, :2], 16) / 2
        corner = np.maximum(anchors[:, None, :2], middle - half)
        end = np.minimum(anchors[:, None, 2:], middle + half)
        shared = np.maximum(end - corner, 0).prod(-1).max(1)
        covered = shared >= 0.3 * (anchors[:, 2:] - anchors[:, :2]).prod(1)
        assert 100 < covered.sum() < len(anchors) - 100
        np.testing.assert_array_equal(
            got[image], np.where((without[image] == NEGATIVE) & covered, IGNORED, without[image])
        )


def test_scores_of_labels_reach_their_anchors():
    faces = {**faces_of(ANCHORS[None, [7, 20]]), "scores": np.array([[0.25, 0.75]])}
    targets = AnchorTarget(forced_iou=None, positive_iou=0.99, negative_iou=0.5)(faces, ANCHORS)
    np.testing.assert_array_equal(np.flatnonzero(targets.scores[0]), [7, 20])
    np.testing.assert_array_equal(targets.scores.numpy()[0, [7, 20]], [0.25, 0.75])
