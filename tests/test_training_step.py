"""A step on photos against an independent computation."""

from pathlib import Path

import numpy as np
import numpy_recipe
import pytest
import tensorflow as tf
from wider_tree import DATA, needs_data

from retinaface_tf import RetinaFace
from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.annotations.widerface import read_widerface
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import training_dataset
from retinaface_tf.data.shards import ConvertOptions, write_shards
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD


@pytest.mark.slow
@needs_data("wider_val_samples", "wider_ground_truth")
def test_a_step_on_photos_is_an_independent_computation(bundled_model, tmp_path):
    """Two photos, the bundled weights, synthetic landmarks: losses as in NumPy, weights as by hand."""
    photos, faces = photo_batch(tmp_path / "shards")
    assert (faces["visible"] > 0).any()
    assert ((faces["visible"] < 0).all(axis=-1) & (faces["boxes"][..., 2] > 0)).any()
    model = RetinaFace(**bundled_model.get_config())
    model.set_weights(bundled_model.get_weights())
    rate, decay = 1e-3, 5e-4
    model.compile(MomentumSGD(rate, coupled_decay=decay), loss=Objective())
    anchors = np.array(model.anchor_generator(*photos.shape[1:3]))
    twin = RetinaFace(**bundled_model.get_config())
    twin.set_weights(bundled_model.get_weights())
    with tf.GradientTape() as tape:
        predictions = twin(photos, training=True)
        arrays = {key: value.numpy() for key, value in predictions.items()}
        losses, slopes = numpy_recipe.bb6_losses(arrays, faces, anchors, match=fast_match)
        # The chain rule from NumPy's gradient on: nothing of our losses is in it.
        weight = {"face": 1.0, "box": 2.0, "landmark": 1.0}
        total = sum(weight[k] * tf.reduce_sum(predictions[k] * slopes[k].astype("float32")) for k in weight)
    gradients = tape.gradient(total, twin.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    logs = model.fit(tf.data.Dataset.from_tensors((photos, faces)), verbose=0, shuffle=False).history
    for key in weight:
        np.testing.assert_allclose(logs[key][0], weight[key] * losses[key], rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(logs["loss"][0], sum(weight[k] * losses[k] for k in weight), rtol=1e-4)
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        expected = -rate * (gradient.numpy() + decay * old)
        np.testing.assert_allclose(
            variable.numpy() - old, expected, atol=1e-3 * np.abs(expected).max() + 2e-7 * np.abs(old).max()
        )


def photo_batch(folder):
    """Two augmented photos of 160 px from the training pipeline, with drawn landmarks for all faces but each third."""
    by_name = {
        Path(record.files[0]).name: record
        for record in read_widerface(DATA / "wider_ground_truth" / "wider_face_val.mat")
    }
    records = []
    for path in sorted((DATA / "wider_val_samples").glob("*.jpg")):
        boxes = np.array(by_name[path.name].boxes)
        middle, side = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, boxes[:, None, 2:] - boxes[:, None, :2]
        landmarks = middle + side * [[-0.2, -0.2], [0.2, -0.15], [0, 0.1], [-0.1, 0.3], [0.1, 0.3]]
        visible = np.ones((len(boxes), 5), int)
        visible[::3] = -1
        records.append(annotate_photo(path.name, boxes, landmarks, visible))
    write_shards(
        join(records), DATA / "wider_val_samples", folder, ConvertOptions(shards=1), source={"kind": "test"}, workers=1
    )
    _, paths = open_shards(folder)
    dataset = training_dataset(paths, len(records), image_size=160, batch_size=2, seed=1)
    images, faces = next(dataset.as_numpy_iterator())
    return images, faces


def fast_match(boxes, anchors):
    """`numpy_recipe.match_by_iou` for thousands of anchors, which the loops would take minutes for."""
    low = np.maximum(boxes[:, None, :2], anchors[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], anchors[None, :, 2:])
    both = np.maximum(high - low, 0).prod(axis=-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=-1) for b in (boxes, anchors)]
    table = both / (areas[0][:, None] + areas[1] - both)
    match = np.where(table.max(axis=0) >= np.float32(0.35), table.argmax(axis=0), numpy_recipe.NEGATIVE)
    for face in np.flatnonzero(table.max(axis=1) >= np.float32(0.2)):
        match[table[face].argmax()] = face
    return match
