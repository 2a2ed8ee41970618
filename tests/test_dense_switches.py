"""The dense branches beside the other switches: on two devices, in half precision, with a cascade."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from faces_3d import VERTICES, small_topology
from mesh_samples import dome

from retinaface_tf import RetinaFace
from retinaface_tf.dense.losses import MeshLoss, VertexLoss
from retinaface_tf.dense.topology import Topology
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.training.batch_norm import freeze
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD

pytestmark = pytest.mark.slow  # trains

SMALL = {"num_filters": 8, "anchors": {"P3": (8,), "P4": (16,), "P5": (32,)}}
REPLICAS = """
import json, sys
import tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # takes longer than the steps
import test_dense_switches as t
both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = t.fit_once("mesh", tf.distribute.get_strategy(), run_eagerly=True)  # without a graph: half the time
print(json.dumps([one, t.fit_once("mesh", both)]))
"""
FORMS = ("vertices", "mesh")


def dense_model(form, **options):
    """A small model with a dense branch, and the loss for it."""
    if form == "vertices":
        dense, loss = {"topology": small_topology().to_dict(), "embedding": 6, "width": 5}, VertexLoss(weight=1.0)
    else:
        vertices, triangles = dome()
        middle = 13 * 6 + 6
        marks = [[middle - 29], [middle - 23], [middle], [middle + 37], [middle + 41]]
        topology = Topology(20 * vertices, triangles, landmarks=marks).to_dict()
        dense = {"form": "mesh", "topology": topology, "filters": 4, "order": 2, "codes": 8, "levels": 2, "factor": 8}
        loss = MeshLoss(weight=0.1, smallest=4.0, crop=16)
    return RetinaFace(**SMALL, dense=dense, **options), loss


def batch(form):
    """Three photos with a face each, the last not counted, and one without."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    boxes = np.array([[[8, 8, 40, 44]], [[20, 16, 60, 60]], [[4, 4, 34, 36]], [[0, 0, 0, 0]]], "float32")
    low, size = boxes[:, :, None, :2], (boxes[..., 2:] - boxes[..., :2])[:, :, None]
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    faces = {
        "boxes": boxes,
        "landmarks": (low + places * size).astype("float32"),
        "visible": np.ones((4, 1, 5), "int32"),
        "image_weight": np.array([1, 1, 0, 1], "float32"),
    }
    if form == "vertices":
        vertices = low + (np.array(VERTICES)[:, :2] / 8 + 0.5) * size
        faces["vertices"] = np.concatenate([vertices, 0 * vertices[..., :1]], axis=-1).astype("float32")
        faces["vertices_labeled"] = np.array([[1], [1], [1], [0]], "int32")
    return images, faces


def fit_once(form, strategy, **options):
    """Logged losses and sums over the changed weights of a step on four images."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model, loss = dense_model(form)
        freeze(model, batch_norm=True)  # the statistics of half a batch would be others
        optimizer = MomentumSGD(1.0, global_clipnorm=0.1)
        model.compile(optimizer, loss=Objective(dense_loss=loss), **options)
    before = model.get_weights()
    data = tf.data.Dataset.from_tensor_slices(batch(form)).batch(4)
    logs = model.fit(data, verbose=0, shuffle=False).history
    change = np.concatenate([np.ravel(a - b) for a, b in zip(model.get_weights(), before, strict=True)])
    sums = [float(np.sum(part)) for part in np.split(change, range(0, len(change), 1000))]
    return {**{key: value[0] for key, value in logs.items()}, "change": sums}


def test_two_replicas_are_one():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    one, two = json.loads(result.stdout.splitlines()[-1])
    assert one["dense"] > 0.1 and one["skipped"] == 1
    assert np.abs(one["change"]).max() > 1e-4
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, rtol=1e-3, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{"dtype": "mixed_bfloat16"}, {"cascade": True, "deformable": "v2"}], ids=str)
def test_a_branch_learns_beside_the_other_switches(form, options):
    keras.utils.set_random_seed(0)
    model, loss = dense_model(form, **options)
    freeze(model, detector=True)
    first = AnchorTarget(positive_iou=0.7, negative_iou=0.3) if model.cascade else None
    objective = Objective(first_target=first, dense_loss=loss)
    model.compile(keras.optimizers.Adam(3e-2), loss=objective, run_eagerly=True)
    images, faces = batch(form)
    logs = [model.train_on_batch(images, faces, return_dict=True) for _ in range(4)]
    name = "vertex" if form == "vertices" else "dense"
    assert 0 < logs[-1][name] < 0.995 * logs[0][name]
    assert logs[-1]["face"] == pytest.approx(logs[0]["face"], rel=1e-6)
