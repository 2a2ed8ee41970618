"""What learns and what does not, and batch normalization given back."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from faces_3d import VERTICES, small_topology
from small_training import small_batch, small_model, step

from retinaface_tf import RetinaFace
from retinaface_tf.dense.losses import VertexLoss
from retinaface_tf.training.batch_norm import (
    freeze,
    is_folded_away,
    is_fresh,
    learns,
    needs_unfolding,
    recompute_bn_stats,
    synchronize_batch_norm,
    unfold_batch_norm,
)
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD

DENSE = {"topology": small_topology().to_dict(), "embedding": 6, "width": 5}


@pytest.mark.parametrize(("batch_norm", "body_stages"), [(False, 0), (True, 0), (False, 2), (True, 3)])
def test_frozen_parts_do_not_change_and_all_others_do(batch_norm, body_stages):
    model = small_model()
    freeze(model, batch_norm, body_stages)
    model.compile(MomentumSGD(1e-2, coupled_decay=1e-2), loss=Objective(), run_eagerly=True)
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones(variable.shape) * 0.01)  # nothing is 0, so decay alone moves it
    before = {variable.path: variable.numpy() for variable in model.weights}
    step(model)
    assert len(before) == len(model.weights)
    for variable in model.weights:
        name = variable.path
        stage = 1 if name.startswith("body_stem") else int(name[10]) if name.startswith("body_stage") else 99
        frozen = stage <= body_stages or (batch_norm and "normalisation" in name)
        assert np.array_equal(variable.numpy(), before[name]) == frozen, name


def test_a_frozen_detector_answers_as_before_while_its_dense_branch_learns():
    keras.utils.set_random_seed(0)
    model = RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)}, dense=DENSE)
    images, faces = small_batch()
    vertices = (faces["landmarks"][:, :, :1] + np.array(VERTICES)[:, :2]).astype("float32")
    faces["vertices"] = np.concatenate([vertices, vertices[..., :1]], axis=-1)
    faces["vertices_labeled"] = np.ones((2, 1), "int32")
    before = model(images, training=False)
    freeze(model, detector=True)
    model.compile("sgd", loss=Objective(dense_loss=VertexLoss(weight=1.0)), run_eagerly=True)
    model.train_step((images, faces))
    after = model(images, training=False)
    assert np.abs(after["vertex"] - before["vertex"]).max() > 0
    for key in ("face", "box", "landmark"):
        np.testing.assert_array_equal(after[key], before[key])
    learns = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert learns == {"vertex_head_P3", "vertex_head_P4", "vertex_head_P5", "vertex_decoder"}


def test_without_a_dense_branch_a_frozen_detector_is_refused():
    with pytest.raises(ValueError, match=r"without a dense branch nothing to learn. Received: model.dense=None"):
        freeze(small_model(), detector=True)


def test_frozen_batch_norm_uses_its_statistics():
    model = small_model()
    freeze(model, batch_norm=True)
    images, _ = small_batch()
    for key, value in model(images, training=True).items():
        np.testing.assert_array_equal(value, model(images, training=False)[key])


def test_resnet_stages_and_what_is_no_stage():
    model = RetinaFace("resnet18", num_filters=8)
    freeze(model, body_stages=2)
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    assert any("layer2" in name for name in frozen)
    assert not any("layer3" in name for name in frozen)
    assert any("stem" in name for name in frozen)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=f"0 to 4 for this body. Received: body_stages={wrong}"):
            freeze(model, body_stages=wrong)
    synchronize_batch_norm(model)
    assert all(block.normalisation.synchronized for block in model.conv_blocks)


def test_calibration_changes_no_answer_and_fits_the_statistics():
    model = small_model()
    random = np.random.default_rng(1)
    for block in model.conv_blocks:
        shape = block.normalisation.gamma.shape
        block.normalisation.gamma.assign(random.uniform(0.5, 1.5, shape))
        block.normalisation.beta.assign(random.uniform(-0.5, 0.5, shape))
    images = random.integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    before = {key: value.numpy() for key, value in model(images, training=False).items()}
    assert is_folded_away(model)
    assert unfold_batch_norm(model, [images]) is None
    assert not is_folded_away(model)
    after = model(images, training=False)
    trained = model(images, training=True)
    for key, value in before.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(after[key] / scale, value / scale, atol=1e-4)
        # One batch measured, and the same one normalized by itself: hardly another answer.
        np.testing.assert_allclose(trained[key] / scale, value / scale, atol=2e-3)
    assert all(type(block.normalisation) is keras.layers.BatchNormalization for block in model.conv_blocks)


def test_calibration_over_unequal_batches_is_that_of_all_photos():
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3)).astype("uint8")
    whole, parts = small_model(), small_model()
    unfold_batch_norm(whole, [images])
    unfold_batch_norm(parts, iter([images[:3], images[3:]]))
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(1, np.abs(one).max()))
    with pytest.raises(ValueError, match="at least one batch"):
        unfold_batch_norm(whole, [])


def test_precise_statistics_are_those_of_the_batches_and_spare_what_is_frozen():
    """A first convolution of ones on gray images: mean and variance of its output can be computed by hand."""
    model = small_model()
    first, second = (block for block in model.conv_blocks[:2])
    first.convolution.kernel.assign(np.zeros(first.convolution.kernel.shape))
    second.normalisation.trainable = False
    kept = second.normalisation.moving_mean.numpy()
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3)).astype("uint8")
    recompute_bn_stats(model, [images[:8], images[8:]])
    assert (first.normalisation.moving_mean.numpy() == 0).all()
    assert (first.normalisation.moving_variance.numpy() == 0).all()
    np.testing.assert_array_equal(second.normalisation.moving_mean, kept)
    # With the statistics of one batch, inference on it is what training computes on it.
    recompute_bn_stats(model, [images])
    for key, value in model(images, training=True).items():
        np.testing.assert_allclose(model(images, training=False)[key], value, atol=2e-3 * np.abs(value).max())


def test_only_folded_weights_that_are_to_learn_need_statistics():
    model = small_model()
    assert is_fresh(model) and not needs_unfolding(model)  # such as ImageNet's backbone below fresh heads
    for block in model.conv_blocks:  # folded away: a shift, and nothing measured
        block.normalisation.beta.assign(block.normalisation.beta + 0.25)
    assert not is_fresh(model) and needs_unfolding(model)
    freeze(model, batch_norm=True)
    assert not learns(model) and not needs_unfolding(model)
    freeze(small := small_model(), batch_norm=False)
    unfold_batch_norm(small, [np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("uint8")])
    assert learns(small) and not needs_unfolding(small)
