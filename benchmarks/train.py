"""Speed of a training step beside the same network without targets and losses: images a second and the ratio.

    python benchmarks/train.py

Both run forward, backward and optimizer on the same images in one process, in turn. The plain network's loss is the sum
of its outputs. Boxes are random: 32 faces a photo.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import time

import keras
import numpy as np
import tensorflow as tf

FACES = 32


def batch(size, count, seed=0):
    """(images, faces) as the pipeline gives them."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, size * 0.9, (count, FACES, 2))
    boxes = np.concatenate([low, low + random.uniform(8, size / 8, (count, FACES, 1))], axis=-1).astype("float32")
    faces = {
        "boxes": boxes,
        "landmarks": boxes[:, :, None, :2] + random.uniform(0, 8, (count, FACES, 5, 2)).astype("float32"),
        "visible": np.ones((count, FACES, 5), "int32"),
        "image_weight": np.ones(count, "float32"),
    }
    images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return tf.constant(images), {name: tf.constant(value) for name, value in faces.items()}


def steps(preset):
    """The two steps: dict name -> function of a batch."""
    from retinaface_tf import RetinaFace
    from retinaface_tf.training.build import compile_model
    from retinaface_tf.training.config import read_recipe

    model = RetinaFace.from_preset(preset, load_weights=False)
    compile_model(model, read_recipe(preset), steps_per_epoch=1000)
    model.optimizer.learning_rate.learning_rate = 0.0  # the same work, but the weights stay where they are
    bare = RetinaFace.from_preset(preset, load_weights=False)
    optimizer = keras.optimizers.SGD(0.0, momentum=0.9)
    optimizer.build(bare.trainable_variables)

    @tf.function(reduce_retracing=True)
    def whole(images, faces):
        return model.train_step((images, faces))

    @tf.function(reduce_retracing=True)
    def network(images, faces):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(value) for value in bare(images, training=True).values()])
        optimizer.apply(tape.gradient(loss, bare.trainable_variables), bare.trainable_variables)
        return loss

    return {"network alone": network, "training step": whole}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mobilenet025")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    contenders = steps(args.preset)
    print(f"{args.preset}, batch {args.batch}, {FACES} faces a photo, medians of {args.rounds} steps in turn\n")
    print("| pixels | network alone, images/s | training step, images/s | ratio |\n|---|---|---|---|")
    for size in (320, 640):
        data = batch(size, args.batch)
        times = {name: [] for name in contenders}
        for turn in range(args.rounds + 2):
            for name, step in contenders.items():
                start = time.perf_counter()
                tf.nest.map_structure(lambda value: value.numpy(), step(*data))
                if turn >= 2:
                    times[name].append(time.perf_counter() - start)
        rates = {name: args.batch / np.median(values) for name, values in times.items()}
        ratio = np.median(np.array(times["network alone"]) / np.array(times["training step"]))
        print(f"| {size} | {rates['network alone']:.1f} | {rates['training step']:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
