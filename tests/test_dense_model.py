"""The dense branch in the model: vertices decoded, learned, kept through save and fold, and exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from faces_3d import small_topology

import retinaface_tf
from retinaface_tf import RetinaFace
from retinaface_tf.dense.branch import VertexDecoder, complete_dense
from retinaface_tf.dense.losses import VertexLoss
from retinaface_tf.dense.pose import rotation_matrix, to_camera
from retinaface_tf.export.onnx import export_onnx
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.saved_model import export_saved_model
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.geometry.anchor_target import LossContext, Targets
from retinaface_tf.training.build import warm_start
from retinaface_tf.training.objective import Objective, global_means

pytestmark = pytest.mark.slow  # trains and exports

TOPOLOGY = small_topology()
DENSE = {"topology": TOPOLOGY.to_dict(), "embedding": 6, "width": 5}
SMALL = {"num_filters": 8, "anchors": {"P3": (8,), "P4": (16,), "P5": (32,)}}
RIGHT = np.array([1, 0, 0], "float32")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype("uint8")


def faces(labeled=1):
    """One face in each of two images, the second with landmarks alone."""
    boxes = np.array([[[8, 8, 40, 40]], [[4, 4, 34, 36]]], "float32")
    turned = 5 * to_camera(TOPOLOGY.vertices) @ rotation_matrix((30, 0, 20)).T
    vertices = (turned + np.array([24, 26, 0]))[None, None].repeat(2, axis=0).astype("float32")
    return {
        "boxes": boxes,
        "landmarks": np.einsum("lv,nfvc->nflc", TOPOLOGY.landmark_matrix, vertices[..., :2]),
        "visible": np.ones((2, 1, 5), "int32"),
        "vertices": vertices,
        "vertices_labeled": np.array([[labeled], [0]], "int32"),
    }


@pytest.fixture(scope="module")
def trained():
    """A dense model after some steps: its faces are no longer the mean one."""
    keras.utils.set_random_seed(0)
    model = RetinaFace(**SMALL, dense=DENSE)
    model.compile(keras.optimizers.Adam(1e-2), loss=Objective(dense_loss=VertexLoss(weight=1.0)))
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    batches = tf.data.Dataset.from_tensors((IMAGES, faces())).repeat()
    logs = model.fit(batches, epochs=4, steps_per_epoch=20, verbose=0, shuffle=False).history
    return model, before, logs


def test_a_decoder_that_says_nothing_gives_the_mean_face_as_large_as_the_anchor():
    decoder = VertexDecoder(**DENSE)
    decoder.build((None, 6))
    vertices = decoder(np.zeros((1, 6), "float32"), np.array([[10.0, 20, 70, 80]], "float32")).numpy()[0]
    # Six wide and six high: a unit of the mesh is 10 pixels; its middle (0, 1) is the anchor's (40, 50).
    expected = np.array(TOPOLOGY.vertices) * [10, -10, -10] + [40, 60, 0]
    np.testing.assert_allclose(vertices[:, :2], expected[:, :2], atol=1e-4)
    np.testing.assert_allclose(vertices[:, 2], expected[:, 2] - expected[:, 2].mean(), atol=1e-4)
    assert decoder(np.zeros((0, 6), "float32"), np.zeros((0, 4), "float32")).shape == (0, 9, 3)


def test_a_decoder_keeps_its_arguments():
    twin = VertexDecoder.from_config(VertexDecoder(**DENSE).get_config())
    assert (twin.embedding, twin.width, twin.topology) == (6, 5, DENSE["topology"])
    assert keras.saving.get_registered_object("retinaface_tf>VertexDecoder") is VertexDecoder


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"topologie": 1}, "no field 'topologie'"),
        ({"width": 3}, "needs a `topology`"),
        ({**DENSE, "width": 0}, r"`dense.width` must be a positive integer, at most 4096. Received: 0"),
        ({**DENSE, "vertices": 3}, "from 5 vertices"),
        ("face.stl", r"must be an \.obj file or an archive"),
    ],
)
def test_what_is_no_dense_branch_is_refused(dense, message):
    with pytest.raises(ValueError, match=message):
        complete_dense(dense)


def test_losses_as_by_hand():
    """An anchor of 10 by 10, so that a tenth of it is a pixel. All vertices are a pixel too far right."""
    anchors = np.array([[[0, 0, 10, 10]]], "float32")
    truth = (np.array(TOPOLOGY.vertices) * [1, -1, -1] + [5, 5, 0]).astype("float32")
    landmarks = (TOPOLOGY.landmark_matrix @ truth)[:, :2]
    labels = {
        "landmarks": landmarks[None, None],
        "vertices": truth[None, None],
        "vertices_labeled": np.array([[1]], "int32"),
    }
    one = np.ones((1, 1), "float32")
    targets = Targets(one, one, anchors, one, one, np.ones((1, 1, 5), "float32"), np.zeros((1, 1), "int32"))
    loss = VertexLoss(weight=0.5, edge_weight=2.0, consistency_weight=3.0)
    predictions = {"vertex": np.zeros((1, 1, 6), "float32")}

    def losses(vertices, **changes):
        batch = {"faces": {**labels, **changes}, "targets": targets, "predictions": predictions, "anchors": anchors}
        context = LossContext(images=None, **batch, decoder=lambda *_: tf.constant(vertices[None]), topology=TOPOLOGY)
        found = global_means(loss(context))
        return [round(float(found[name]), 3) for name in ("vertex", "edge", "consistency")]

    assert losses(truth) == [0, 0, 0]
    assert losses(truth + RIGHT) == [0.5, 0, 1.5]
    assert losses(truth + RIGHT, vertices_labeled=np.array([[0]], "int32")) == [0, 0, 1.5]
    assert losses(truth + RIGHT, image_weight=np.array([0.0], "float32")) == [0, 0, 0]
    lengths = np.linalg.norm(truth[TOPOLOGY.edges[:, 0]] - truth[TOPOLOGY.edges[:, 1]], axis=1)
    middle = truth.mean(axis=0)
    assert losses(2 * truth - middle)[1] == pytest.approx(0.5 * 2 * lengths.mean(), abs=2e-3)


def test_faces_without_vertices_are_refused():
    with pytest.raises(ValueError, match="learns from faces with `vertices`"):
        VertexLoss()(LossContext(None, {"boxes": None}, None, {}, None, None, TOPOLOGY))


def test_every_weight_of_the_branch_learns_and_the_losses_fall(trained):
    model, before, logs = trained
    branch = [v for v in model.trainable_variables if v.path.startswith(("vertex_head_", "vertex_decoder/"))]
    assert len(branch) == 3 * 2 + 4
    changed = {v.path for v in branch if np.abs(v.numpy() - before[v.path]).max() > 0}
    # At most one level's anchors answer for these faces, so other levels' heads have nothing to learn from.
    assert len(changed) >= 4 + 2
    assert {"vertex", "edge", "consistency"} <= set(logs)
    assert logs["vertex"][-1] < 0.6 * logs["vertex"][0] and logs["consistency"][-1] < 0.6 * logs["consistency"][0]


def test_no_labeled_face_costs_nothing(trained):
    nothing = {**faces(0), "visible": np.full((2, 1, 5), -1)}
    logs = trained[0].evaluate(tf.data.Dataset.from_tensors((IMAGES, nothing)), verbose=0, return_dict=True)
    assert logs["vertex"] == logs["edge"] == logs["consistency"] == 0 and np.isfinite(logs["loss"])


def test_a_model_saved_is_the_same_model(trained, tmp_path):
    model = trained[0]
    model.save(tmp_path / "model.keras")
    again = retinaface_tf.load(tmp_path / "model.keras")
    ours, theirs = (one.detect(IMAGES[0], score_threshold=0.05) for one in (model, again))
    assert len(ours) and ours.vertices.shape == (len(ours), 9, 3) and ours.head_poses().shape == (len(ours), 3)
    np.testing.assert_array_equal(ours.vertices, theirs.vertices)
    assert theirs.topology.triangles.tolist() == TOPOLOGY.triangles.tolist()


def test_every_export_gives_the_same_vertices(trained, tmp_path):
    model, options = trained[0], ExportOptions(size=(48, 48), score_threshold=0.05)
    export_tflite(model, tmp_path / "model.tflite", options)
    export_onnx(model, tmp_path / "model.onnx", ExportOptions(score_threshold=0.05))
    export_saved_model(model, tmp_path / "saved", ExportOptions(score_threshold=0.05))
    ours = model.detect(list(IMAGES), score_threshold=0.05, resize=None, close_ups=False)
    assert sum(map(len, ours)) >= 2
    for name in ("model.tflite", "model.onnx", "saved"):
        theirs = retinaface_tf.load(tmp_path / name).detect(list(IMAGES), resize=None, close_ups=False)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(other.vertices, one.vertices, atol=0.01, err_msg=name)
            assert len(other.topology) == 9


def test_a_plain_model_can_be_continued_with_a_dense_branch():
    keras.utils.set_random_seed(1)
    plain, dense = RetinaFace(**SMALL), RetinaFace(**SMALL, dense=DENSE)
    warm_start(dense, plain)
    ours, theirs = plain(IMAGES[:1], training=False), dense(IMAGES[:1], training=False)
    assert set(theirs) - set(ours) == {"vertex"}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_a_dense_model_learns_with_a_vertex_loss_alone():
    with pytest.raises(ValueError, match="`dense_loss` must be given for a model with a dense branch"):
        RetinaFace(**SMALL).compile("sgd", loss=Objective(dense_loss=VertexLoss()))
