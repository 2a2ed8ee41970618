"""`detect` notices every public way to change weights, and looks at no weight while nobody changes one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_training import small_batch

from retinaface_tf import RetinaFace

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def shared():
    keras.utils.set_random_seed(0)
    model = RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)})
    return model, model.get_weights()


@pytest.fixture
def model(shared):
    """A small model with the weights that it had in the beginning."""
    model, weights = shared
    model.set_weights(weights)
    return model


def boxes(model):
    return model.detect(IMAGE, score_threshold=0.0, max_detections=50, close_ups=False).boxes


def inner(model):
    """A block in the middle of the network."""
    return model.get_layer("body_stage1_3_pointwise")


def loss(model):
    return sum(
        tf.reduce_mean(tf.square(value)) for value in model(IMAGE[None].astype("float32"), training=True).values()
    )


def assign(model, tmp_path):
    kernel = inner(model).convolution.kernel
    kernel.assign(1.5 * kernel)


def assign_add(model, tmp_path):
    inner(model).normalisation.beta.assign_add(np.full(32, 0.5, "float32"))


def assign_sub(model, tmp_path):
    inner(model).normalisation.moving_mean.assign_sub(np.full(32, 0.5, "float32"))


def assign_to_tensorflows(model, tmp_path):
    inner(model).convolution.kernel.value.assign(tf.ones([1, 1, 32, 32]))


def scatter(model, tmp_path):
    beta = inner(model).normalisation.beta.value
    beta.scatter_nd_add([[3]], [5.0])


def set_weights(model, tmp_path):
    model.set_weights([1.1 * array for array in model.get_weights()])


def set_layer_weights(model, tmp_path):
    inner(model).set_weights([1.1 * array for array in inner(model).get_weights()])


def changed_copy(model):
    copy = RetinaFace.from_config(model.get_config())
    copy.set_weights([1.1 * array for array in model.get_weights()])
    return copy


def load_weights(model, tmp_path):
    changed_copy(model).save_weights(tmp_path / "w.weights.h5")
    model.load_weights(tmp_path / "w.weights.h5")


def restore_checkpoint(model, tmp_path):
    kernel = inner(model).convolution.kernel
    checkpoint = tf.train.Checkpoint(model=model)
    before = kernel.numpy()
    kernel.assign(1.5 * kernel)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    kernel.assign(before)
    boxes(model)
    checkpoint.read(path)


def optimizer_step(model, tmp_path, variables=None):
    variables = variables or model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(model)
    keras.optimizers.SGD(0.1).apply(tape.gradient(value, variables), variables)


def optimizer_step_of_one_block(model, tmp_path):
    optimizer_step(model, tmp_path, inner(model).trainable_variables)


def batch_normalization_alone(model, tmp_path):
    model(IMAGE[None].astype("float32"), training=True)


@pytest.mark.parametrize(
    "change",
    [
        assign,
        load_weights,
        optimizer_step_of_one_block,
        batch_normalization_alone,
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                assign_add,
                assign_sub,
                assign_to_tensorflows,
                scatter,
                set_weights,
                set_layer_weights,
                restore_checkpoint,
                optimizer_step,
            )
        ),
    ],
)
def test_a_change_is_noticed(model, change, tmp_path):
    before = boxes(model)
    assert model.inference() is model.inference()
    change(model, tmp_path)
    after = boxes(model)
    assert not np.array_equal(before, after)
    twin = RetinaFace.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(boxes(twin), after)


class SquaredHeads(RetinaFace):
    """Learns that all its predictions should be 0."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return sum(tf.reduce_mean(tf.square(value)) for value in y_pred.values())

    def compile(self, optimizer, **options):
        keras.Model.compile(self, optimizer=optimizer, **options)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fit", "train_on_batch", "eager fit"])
def test_training_is_noticed_each_time_and_costs_nothing_after(shared, how):
    model = SquaredHeads(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)})
    for name in ("face", "box", "landmark"):  # the heads stay, the middle learns
        for level in ("P3", "P4", "P5"):
            model.get_layer(f"{name}_head_{level}").trainable = False
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=how == "eager fit")
    images, faces = small_batch()
    seen = [boxes(model)]
    for _ in range(2):
        if how == "train_on_batch":
            model.train_on_batch(images, faces)
        else:
            model.fit(images, faces, batch_size=2, verbose=0)
        seen.append(boxes(model))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    assert isinstance(model._weights.version(), int)  # a number, and no comparison of values


@pytest.mark.slow
def test_a_loop_of_ones_own_in_a_graph_is_noticed_each_time(model):
    optimizer = keras.optimizers.SGD(0.1)
    variables = inner(model).trainable_variables
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(model)
        optimizer.apply(tape.gradient(value, variables), variables)

    seen = [boxes(model)]
    for _ in range(2):
        step()
        seen.append(boxes(model))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    assert model.inference() is model.inference()


@pytest.mark.slow
def test_under_a_strategy_too():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)})
    before = boxes(model)
    kernel = inner(model).convolution.kernel
    kernel.assign(1.5 * kernel)
    assert not np.array_equal(boxes(model), before)
