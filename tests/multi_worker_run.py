"""One process of a small training, started by `test_multi_worker.py`: python multi_worker_run.py STRATEGY FOLDER [RUN…]

RUN is `frozen` or `synchronized` (batch normalization); `clipped` is `frozen` with clipped gradients; `resumed` is
`frozen` with a checkpoint after each epoch, from the newest on, slow enough to be killed; `left` is one whose second
worker raises an error at step 5; `unmended` shows what Keras does alone. Writes `FOLDER/RUN-WORKER.npz`, prints
`step N` after each step.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", OMP_NUM_THREADS="1")

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from retinaface_tf.training.optimizer import GlobalGradients
from retinaface_tf.training.strategy import (
    checkpoint_folder,
    distribute,
    from_chief,
    is_chief,
    lost_worker_is_one_line,
    make_strategy,
    num_workers,
)

EPOCHS, STEPS, BATCH = 3, 4, 8
WORKER = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)


def dataset_from(step):
    """Infinite, the same whoever asks: 8 photos of 0 to 5 faces each; a worker's own number of face slots."""

    def make_dataset(worker, workers):
        mine = slice(worker * BATCH // workers, (worker + 1) * BATCH // workers)

        def batches():
            at = step
            while True:
                random = np.random.default_rng(at)
                images = random.normal(size=(BATCH, 12, 12, 3)) + random.normal(size=(BATCH, 1, 1, 1))
                boxes, number = random.normal(size=(BATCH, 5, 4)), random.integers(0, 6, BATCH)
                weights = (np.arange(5) < number[:, None]).astype("float32")
                slots = max(1, number[mine].max())
                yield images[mine], {"boxes": boxes[mine, :slots], "weights": weights[mine, :slots]}
                at += 1

        size = BATCH // workers
        faces = {"boxes": tf.TensorSpec((size, None, 4)), "weights": tf.TensorSpec((size, None))}
        return tf.data.Dataset.from_generator(
            batches, output_signature=(tf.TensorSpec((size, 12, 12, 3)), faces)
        ).prefetch(2)

    return make_dataset


def over_replicas(value):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


class Model(keras.Model):
    """Its loss is divided by the faces of the global batch, not by those of a replica."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.box_loss = keras.metrics.Mean(name="box")
        self.faces = keras.metrics.Sum(name="faces")

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        error = tf.reduce_sum(tf.square(y["boxes"] - y_pred[:, None]), axis=-1) * y["weights"]
        faces = tf.reduce_sum(y["weights"])
        loss = over_replicas(tf.reduce_sum(error)) / tf.maximum(over_replicas(faces), 1)
        self.box_loss.update_state(loss)
        self.faces.update_state(faces)
        return loss / tf.distribute.get_strategy().num_replicas_in_sync


class GlobalSGD(GlobalGradients, keras.optimizers.SGD):
    pass


def build(synchronized, clip):
    keras.utils.set_random_seed(3)
    images = keras.Input((12, 12, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(images)
    norm = keras.layers.BatchNormalization(momentum=0.9, synchronized=synchronized)
    norm.trainable = synchronized
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(norm(features)))
    model = Model(images, keras.layers.Dense(4)(features))
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.7)
    model.compile(GlobalSGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.9, global_clipnorm=clip))
    return model


class Steps(keras.callbacks.Callback):
    """Keeps the losses and reports; with a `manager` saves after each epoch; slow or failing where asked to be."""

    def __init__(self, manager=None, pause=0.0, fail=False):
        super().__init__()
        self.manager, self.pause, self.fail, self.losses = manager, pause, fail, {}

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())  # int() of a mirrored variable fails
        self.losses[step] = float(logs["loss"])
        print(f"step {step} at {time.time():.2f}", flush=True)
        time.sleep(self.pause)
        if self.fail and WORKER == 1 and step == 5:
            raise ValueError("something of this worker alone")

    def on_epoch_end(self, epoch, logs=None):
        if self.manager:
            self.manager.save(checkpoint_number=epoch + 1)


def run(strategy, name, folder):
    resumed = name == "resumed"
    with strategy.scope():
        model = build(synchronized=name == "synchronized", clip=0.3 if name == "clipped" else None)
        model.optimizer.build(model.trainable_variables)
    with checkpoint_folder(strategy, folder / "checkpoints") as own:
        # The trackers are saved as well: their variables are the ones that can't be read by the chief alone.
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, faces=model.faces.variables)
        manager, epoch = None, 0
        if resumed:
            manager = tf.train.CheckpointManager(checkpoint, str(own), max_to_keep=2)
            newest = tf.train.latest_checkpoint(str(folder / "checkpoints"))
            epoch = from_chief(strategy, int(newest.rpartition("-")[2]) if newest else 0)
            if epoch:
                checkpoint.restore(str(folder / "checkpoints" / f"ckpt-{epoch}")).assert_consumed()
        print(f"from epoch {epoch}, {num_workers(strategy)} workers, chief {is_chief(strategy)}", flush=True)
        steps = Steps(manager, pause=0.15 if resumed else 0.0, fail=name == "left")
        history = model.fit(
            distribute(strategy, dataset_from(epoch * STEPS)),
            initial_epoch=epoch,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            callbacks=[steps],
            verbose=2 if is_chief(strategy) else 0,
        )
    with (folder / f"{name}-{WORKER}.npz").open("wb") as file:
        weights = {f"weight {n}": weight.numpy() for n, weight in enumerate(model.weights)}
        weights["rate"] = float(model.optimizer.learning_rate)
        logs = {f"history {key}": values for key, values in history.history.items()}
        np.savez(file, steps=list(steps.losses), losses=list(steps.losses.values()), **weights, **logs)


def try_without_the_mend(owner, name, attempt):
    """Print how a run ends when one of the two mended places of Keras is as it was."""
    mended = getattr(owner, name)
    setattr(owner, name, mended.__wrapped__)
    try:
        attempt()
        print(f"without the mend of {name}: it runs", flush=True)
    except (TypeError, ValueError) as error:
        print(f"without the mend of {name}: {' '.join(str(error).split())}", flush=True)
    setattr(owner, name, mended)


def main(name, folder, *runs):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    if name == "mirrored":
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    strategy = make_strategy(name)
    try:
        with lost_worker_is_one_line(strategy):
            for each in runs:
                once = functools.partial(run, strategy, each, Path(folder))
                if each == "unmended":
                    try_without_the_mend(trainer.TensorFlowTrainer, "_maybe_symbolic_build", once)
                    try_without_the_mend(trainer, "reduce_per_replica", once)
                else:
                    once()
    except OSError as error:  # as cli.py does
        print(f"retinaface-tf: {' '.join(str(error).split())}", flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
