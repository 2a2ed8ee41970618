"""The mesh branch in the model: what it learns from photos alone, and that nothing else changes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from mesh_samples import dome

import retinaface_tf
from retinaface_tf import RetinaFace
from retinaface_tf.dense.branch import complete_dense
from retinaface_tf.dense.losses import MeshLoss, cut_out
from retinaface_tf.dense.mesh_branch import MeshBranch
from retinaface_tf.export.metadata import count_operations
from retinaface_tf.export.onnx import export_onnx
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.saved_model import export_saved_model
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.geometry.anchor_target import AnchorTarget, LossContext
from retinaface_tf.training.build import warm_start
from retinaface_tf.training.objective import Objective, global_means

pytestmark = pytest.mark.slow  # trains and exports

SMALL = {"num_filters": 8, "anchors": {"P3": (8,), "P4": (16,), "P5": (32, 64)}}
SIZES = {"filters": 4, "order": 2, "codes": 8, "levels": 2, "factor": 8}


@pytest.fixture(scope="module")
def topology(tmp_path_factory):
    """Path of the dome as an OBJ, with its landmarks beside."""
    path = tmp_path_factory.mktemp("topology") / "dome.obj"
    vertices, triangles = dome()
    lines = [f"v {x} {y} {z}" for x, y, z in 20 * vertices] + [f"f {a} {b} {c}" for a, b, c in triangles + 1]
    path.write_text("\n".join(lines))
    middle = 13 * 6 + 6
    marks = [[middle - 13 * 2 - 3], [middle - 13 * 2 + 3], [middle], [middle + 13 * 3 - 2], [middle + 13 * 3 + 2]]
    path.with_suffix(".landmarks.json").write_text(json.dumps({"landmarks": marks}))
    return path


@pytest.fixture(scope="module")
def mesh(topology):
    return complete_dense({"form": "mesh", "topology": str(topology), **SIZES})


@pytest.fixture
def model(mesh):
    keras.utils.set_random_seed(0)
    return RetinaFace(**SMALL, dense=mesh)


def batch():
    """A lit egg on gray, 64 by 64 pixels, its box, and landmarks."""
    y, x = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5, indexing="ij")
    radius = ((x - 32) / 20) ** 2 + ((y - 32) / 28) ** 2
    image = np.where(radius[..., None] < 1, [200, 150, 120], [90, 90, 90]) * (0.6 + 0.4 * x[..., None] / 64)
    faces = {
        "boxes": np.array([[[12, 4, 52, 60]]], "float32"),
        "landmarks": np.array([[[[24, 24], [40, 24], [32, 32], [26, 44], [38, 44]]]], "float32"),
        "visible": np.ones((1, 1, 5), "int32"),
    }
    return image[None].astype("uint8"), faces


def test_a_topology_is_completed_once(topology, mesh):
    assert complete_dense(mesh) == mesh == json.loads(json.dumps(mesh))
    assert complete_dense({"form": "mesh", "topology": str(topology)})["embedding"] == 128 + 7 + 9
    for wrong, message in (
        ({"topology": "x.obj", "filter": 3}, "has no field 'filter'"),
        ({"filters": 3}, "needs a `topology`"),
        ({"topology": "x.obj", "codes": 0}, r"`dense.codes` must be a number of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            complete_dense({"form": "mesh", **wrong})
    with pytest.raises(ValueError, match="must be 'vertices' or 'mesh'"):
        complete_dense({"form": "net", "topology": "x.obj"})


def test_faces_get_vertices_and_keep_all_else(bundled_model, sample_photo, mesh, tmp_path):
    model = RetinaFace(**{**bundled_model.get_config(), "dense": mesh})
    warm_start(model, bundled_model)
    expected, found = (m.detect(sample_photo, close_ups=False) for m in (bundled_model, model))
    assert expected.vertices is None
    assert found.vertices.shape == (1, 169, 3) and found.vertices.dtype == np.float32
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-3)
    # A branch begins with about the mean face, 0.8 wide and 1 high, where the box is and as large as it.
    low, high = found.vertices[0, :, :2].min(axis=0), found.vertices[0, :, :2].max(axis=0)
    box = found.boxes[0].reshape(2, 2)
    np.testing.assert_allclose((low + high) / 2, box.mean(axis=0), atol=5)
    np.testing.assert_allclose(np.sqrt(np.prod(high - low)), np.sqrt(np.prod(box[1] - box[0])), atol=8)
    assert found.vertices[0, 13 * 6 + 6, 2] < -10  # the nose is towards the camera
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").detect(sample_photo, close_ups=False)
    np.testing.assert_allclose(again.vertices, found.vertices, atol=1e-3)
    assert len(model.detect(np.zeros((64, 64, 3), np.uint8)).vertices) == 0


def losses_of(model, weight):
    images, faces = batch()
    model.compile("sgd", loss=Objective(dense_loss=MeshLoss(weight, smallest=4.0, crop=16)))
    total = model.compute_loss(images, faces, model(images))
    return {"loss": float(total), **{m.name: float(m.result()) for m in model.metrics if m.name in model.loss_names}}


def test_the_loss_is_logged_and_its_weight_counts(model):
    once, thrice = losses_of(model, 0.01), losses_of(model, 0.03)
    assert once["dense"] > 0.1
    assert thrice["dense"] == pytest.approx(3 * once["dense"], rel=1e-4)
    parts = sum(once[name] for name in ("face", "box", "landmark", "dense"))
    assert once["loss"] == pytest.approx(parts, rel=1e-4)


def make_step(model, variables):
    """A traced function of nothing to (parts of the loss, means; gradients)."""
    images, faces = batch()
    anchors = model.anchor_generator(64, 64)
    targets = AnchorTarget()(faces, anchors)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            predictions = model(images, training=False)
            context = (images, faces, targets, predictions, anchors, model.vertex_decoder, model.topology)
            parts = MeshLoss(smallest=4.0, crop=24).parts(LossContext(*context))
            loss = tf.reduce_mean(parts["pixel"] + parts["landmark"] + parts["prior"])
        return {k: tf.reduce_mean(v) for k, v in parts.items()}, tape.gradient(loss, variables)

    return step


def test_photos_teach_every_part_of_the_branch_and_no_other_head(model):
    variables = model.trainable_variables
    parts, gradients = make_step(model, variables)()
    assert parts["covered"] > 0.1
    reached = {
        v.path.split("/")[0]
        for v, g in zip(variables, gradients, strict=True)
        if g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0
    }
    heads = {name.split("_head_")[0] for name in reached if "_head_" in name}
    assert heads == {"vertex"} and any(name.startswith("body") for name in reached)
    branch = [g for v, g in zip(variables, gradients, strict=True) if v.path.startswith("vertex_decoder")]
    assert len(branch) > 4 and all(np.abs(tf.convert_to_tensor(g)).max() > 0 for g in branch)


def test_pixels_come_nearer_to_the_photo(model):
    variables = [v for v in model.trainable_variables if v.path.startswith("vertex_")]
    optimizer = keras.optimizers.Adam(0.01)
    step = make_step(model, variables)
    first, _ = step()
    for _ in range(25):
        optimizer.apply(step()[1], variables)
    last, _ = step()
    assert last["pixel"] < 0.7 * first["pixel"]
    assert last["landmark"] < first["landmark"]
    assert last["covered"] > 0.5 * first["covered"]  # not by hiding


def test_a_batch_without_a_face_costs_nothing(model):
    images, faces = batch()
    empty = {name: value[:, :0] for name, value in faces.items()}
    anchors = model.anchor_generator(64, 64)
    predictions = model(images)
    targets = AnchorTarget()(empty, anchors)
    context = (images, empty, targets, predictions, anchors, model.vertex_decoder, model.topology)
    losses = global_means(MeshLoss()(LossContext(*context)))
    assert float(losses["dense"]) == 0


def test_a_part_of_a_ramp_is_a_ramp():
    ramp = np.tile(np.arange(40, dtype=np.float32)[None, None, :, None], (1, 30, 1, 3))  # a pixel's value: its column
    part, inside = cut_out(ramp, np.array([[4, 2, 20, 18], [36, 2, 44, 10]], np.float32), np.zeros(2, np.int32), 8)
    np.testing.assert_allclose(part[0, 3, :, 0], 4 + 2 * (np.arange(8) + 0.5) - 0.5, atol=1e-4)
    assert inside.numpy()[0].all()
    np.testing.assert_array_equal(inside[1, 0], [1, 1, 1, 0, 0, 0, 0, 0])  # beyond the last pixel's center, 39.5


@pytest.mark.parametrize("arguments", [{"faces": 0}, {"crop": 4}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="must be at least"):
        MeshLoss(**arguments)


def test_the_loss_comes_back_from_its_configuration():
    arguments = {
        **{"weight": 0.1, "faces": 3, "crop": 16, "smallest": 5.0, "landmark_weight": 2.0, "prior_weight": 3.0},
        "variances": [0.2, 0.3],
    }
    assert MeshLoss.from_config(MeshLoss(**arguments).get_config()).get_config() == arguments


def test_a_branch_keeps_its_arguments(mesh):
    arguments = {name: value for name, value in mesh.items() if name != "form"}
    branch = MeshBranch(**arguments)
    twin = MeshBranch.from_config(json.loads(json.dumps(branch.get_config())))
    assert {name: getattr(twin, name) for name in arguments} == arguments
    with pytest.raises(ValueError, match=r"`embedding` must be codes \+ 16"):
        MeshBranch(**{**arguments, "embedding": 5})


def test_every_export_gives_the_same_vertices(model, tmp_path):
    random = np.random.default_rng(0)
    for level in ("P3", "P4", "P5"):  # turned, moved and deformed
        bias = model.get_layer(f"vertex_head_{level}").convolution.bias
        bias.assign(random.normal(size=bias.shape) * 4)
    image, options = batch()[0][0], {"score_threshold": 0.0, "nms_threshold": 0.1, "max_detections": 3}
    export_tflite(model, tmp_path / "model.tflite", ExportOptions(size=(64, 64), **options))
    export_onnx(model, tmp_path / "model.onnx", ExportOptions(**options))
    export_saved_model(model, tmp_path / "saved", ExportOptions(**options))
    ours = model.detect(image, resize=None, close_ups=False, **options)
    assert len(ours) == 3 and np.ptp(ours.vertices[0], axis=0).min() > 3
    for name in ("model.tflite", "model.onnx", "saved"):
        theirs = retinaface_tf.load(tmp_path / name).detect(image, resize=None, close_ups=False)
        np.testing.assert_allclose(theirs.vertices, ours.vertices, atol=0.01, err_msg=name)
        assert len(theirs.topology) == 169
    operations = count_operations(tmp_path / "model.tflite", "tflite")
    assert not [name for name in operations if name.startswith(("CUSTOM", "FLEX", "VAR_HANDLE"))]


def test_half_precision_gives_finite_vertices(model, tmp_path):
    """A mesh that is not turned at all has an angle of 0, and fp16 knows no number as small as 1e-12 to add to it."""
    for level in ("P3", "P4", "P5"):
        convolution = model.get_layer(f"vertex_head_{level}").convolution
        convolution.kernel.assign(0 * convolution.kernel)
    image, options = batch()[0][0], {"score_threshold": 0.0, "nms_threshold": 0.1, "max_detections": 3}
    export_tflite(model, tmp_path / "half.tflite", ExportOptions(size=(64, 64), **options), quantize="fp16")
    ours = model.detect(image, resize=None, close_ups=False, **options)
    theirs = retinaface_tf.load(tmp_path / "half.tflite").detect(image, resize=None, close_ups=False)
    np.testing.assert_allclose(theirs.vertices, ours.vertices, atol=0.2)
