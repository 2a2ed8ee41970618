"""Vertex labels go where their face's landmarks go, through every augmentation, into shards and out of them."""

import numpy as np
import pytest
import tensorflow as tf
import wider_tree
from faces_3d import small_topology

from retinaface_tf.annotations.annotations import annotate_photo
from retinaface_tf.common.types import NOT_LABELED
from retinaface_tf.data.augment import Augmentation, mosaic, plain
from retinaface_tf.data.cleaning import read_photo
from retinaface_tf.data.example import parse_example, to_example
from retinaface_tf.data.fields import FACE_FIELDS
from retinaface_tf.data.pipeline import as_graph, padded_batches
from retinaface_tf.dense.vertex_labels import vertex_fields, write_vertices

TOPOLOGY = small_topology()
MIRROR = TOPOLOGY.mirror.tolist()
FIELDS = vertex_fields(MIRROR)
LANDMARKS = [one[0] for one in TOPOLOGY.landmarks]


def photo(number=0):
    """Two faces of 60 x 40 with vertices, the second without labels."""
    vertices = np.random.default_rng(number).uniform([40, 20, -9], [90, 70, 9], (2, 9, 3)).astype(np.float32)
    return {
        "image": np.zeros((120, 160, 3), np.uint8),
        "boxes": np.array([[30, 10, 90, 50], [90, 60, 150, 100]], np.float32),
        "landmarks": vertices[:, LANDMARKS, :2].copy(),
        "visible": np.ones((2, 5), np.int32),
        "scores": np.ones(2, np.float32),
        "ignored": np.zeros(2, np.int32),
        "vertices": vertices * np.float32([[[1]], [[0]]]),
        "vertices_labeled": np.array([1, 0], np.int32),
    }


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_and_vertices_stay_together(seed):
    augmentation = Augmentation(96, mirror=0.5, rot90=0.5, rotation=30, color_probability=0.0, fields=FIELDS)
    _, faces = augmentation({key: tf.constant(value) for key, value in photo().items()}, tf.constant([7, seed]))
    for landmarks, vertices, labeled in zip(
        *(faces[k].numpy() for k in ("landmarks", "vertices", "vertices_labeled")), strict=True
    ):
        if labeled:
            np.testing.assert_allclose(vertices[LANDMARKS, :2], landmarks, atol=1e-3)


def test_depth_grows_with_the_face_and_survives_the_mirror():
    once, faces = photo(), {}
    for mirror in (0.0, 1.0):
        augmentation = Augmentation(
            320,
            crop_sides=None,
            mirror=mirror,
            color_probability=0.0,
            interpolations=("nearest",),
            fields=FIELDS,
        )
        _, faces[mirror] = augmentation({key: tf.constant(value) for key, value in once.items()}, tf.constant([0, 0]))
    # 160 pixels of the longer side become 320.
    np.testing.assert_allclose(faces[0.0]["vertices"][0], 2 * once["vertices"][0], rtol=1e-5)
    mirrored = faces[1.0]["vertices"][0].numpy()[MIRROR]
    np.testing.assert_allclose(mirrored * [-1, 1, 1] + [320, 0, 0], 2 * once["vertices"][0], rtol=1e-4)


def test_a_mosaic_moves_vertices_into_their_quarter():
    faces = {key: tf.constant(value) for key, value in photo().items() if key != "image"}
    _, four = mosaic([tf.zeros([64, 64, 3], tf.uint8)] * 4, [faces] * 4, (*FACE_FIELDS, *FIELDS))
    np.testing.assert_allclose(four["vertices"][6] - four["vertices"][0], np.tile([64, 64, 0], (9, 1)), atol=1e-4)
    assert four["vertices_labeled"].numpy().tolist() == [1, 0] * 4


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A serialized example of three faces, the first and the last with vertices, and what was written."""
    folder = tmp_path_factory.mktemp("photos")
    wider_tree.make_photos(folder, ["a.jpg"])
    file = read_photo(folder / "a.jpg")
    message = tf.train.Example.FromString(to_example(annotate_photo("a.jpg", [[1, 2, 30, 40]] * 3), file))
    vertices = np.random.default_rng(0).uniform(0, 50, (2, 9, 3))
    write_vertices(message, [(vertices[0], 0.01), (None, 0.3), (vertices[1], 0.02)], (file.width, file.height))
    return message.SerializeToString(), vertices


def test_labels_in_an_example_there_and_back(example):
    serialized, vertices = example
    parsed = parse_example(serialized, fields=FIELDS)
    assert parsed["vertices_labeled"].numpy().tolist() == [1, 0, 1]
    np.testing.assert_allclose(parsed["vertices"].numpy()[[0, 2]], vertices, rtol=1e-5)
    assert not parsed["vertices"][1].numpy().any()
    assert "vertices" not in parse_example(serialized)


def test_an_example_without_labels_has_faces_without(tmp_path):
    wider_tree.make_photos(tmp_path, ["a.jpg"])
    serialized = to_example(annotate_photo("a.jpg", [[1, 2, 30, 40]]), read_photo(tmp_path / "a.jpg"))
    parsed = parse_example(serialized, fields=FIELDS)
    assert parsed["vertices"].shape == (1, 9, 3) and parsed["vertices_labeled"].numpy().tolist() == [0]


@pytest.mark.parametrize("max_faces", [None, 5])
def test_padding_has_no_labels(example, max_faces):
    from retinaface_tf.data.pipeline import load_photo

    as_is = plain(64, fields=FIELDS)
    records = tf.data.Dataset.from_tensor_slices([example[0], b"broken"])
    photos = records.map(as_graph(lambda record: load_photo(as_is, record, tf.zeros([2], tf.int64))))
    _, faces = next(iter(padded_batches(photos, 64, 2, max_faces, fields=as_is.fields)))
    assert faces["vertices"].shape == (2, max_faces or 3, 9, 3)
    assert faces["vertices_labeled"].numpy()[:, :3].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert (faces["visible"].numpy()[1] == NOT_LABELED).all() and faces["image_weight"].numpy().tolist() == [1, 0]
