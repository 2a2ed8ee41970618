"""What AnchorTarget costs: its part of a training step, and its memory in a crowd.

    python benchmarks/targets.py

The step is forward and backward of the mobilenet025 network at 640 px, batch 8, 32 faces a photo. Layer and step take
turns in one process, so that a busy machine slows both; medians. Memory is the growth of a fresh process' peak while
it matches 1,000 faces a photo.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZE, BATCH, FACES, CROWD = 640, 8, 32, 1000
ROUNDS, CALLS = 5, 2
MATCHINGS = ("iou", "atss")


def peak_memory():
    """Megabytes, of this program alone: getrusage has the peak of the one that started it in it."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def make_faces(number):
    random = np.random.default_rng(0)
    side = np.exp(random.uniform(np.log(8), np.log(200), (BATCH, number, 1)))
    low = random.uniform(0, SIZE - side, (BATCH, number, 2))
    boxes = np.concatenate([low, low + side], axis=-1).astype("float32")
    landmarks = np.repeat((boxes[..., None, :2] + boxes[..., None, 2:]) / 2, 5, axis=2)
    return {"boxes": boxes, "landmarks": landmarks, "visible": np.ones((BATCH, number, 5), "int32")}


def target_functions(generator, number):
    """Traced functions of no argument, by name of the matching."""
    import tensorflow as tf

    from retinaface_tf.geometry.anchor_target import AnchorTarget

    faces = {key: tf.constant(value) for key, value in make_faces(number).items()}
    counts = generator.level_counts(SIZE, SIZE)

    def make(matching):
        layer = AnchorTarget(matching=matching)
        run = tf.function(lambda faces: layer(faces, generator(SIZE, SIZE), level_counts=counts), autograph=False)
        return lambda: run(faces).faces.numpy()

    return {matching: make(matching) for matching in MATCHINGS}


def memory(matching):
    """Growth of the peak resident memory in MB over that of the same call with one face."""
    from retinaface_tf.geometry.anchors import AnchorGenerator

    generator = AnchorGenerator({"P3": (16, 32), "P4": (64, 128), "P5": (256, 512)})
    peaks = []
    for number in (1, CROWD):
        call = target_functions(generator, number)[matching]
        for _ in range(2):
            call()
        peaks.append(peak_memory())
    return peaks[1] - peaks[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", choices=MATCHINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        json.dump(memory(args.memory), sys.stdout)
        return
    import tensorflow as tf

    from retinaface_tf import RetinaFace

    model = RetinaFace.from_preset("mobilenet025", load_weights=False)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype("uint8"))

    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            total = sum(tf.reduce_sum(value) for value in model(images, training=True).values())
        return [tf.reduce_sum(gradient) for gradient in tape.gradient(total, model.trainable_variables)]

    calls = {"step": lambda: step(images)[0].numpy(), **target_functions(model.anchor_generator, FACES)}
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for i in range(1 + CALLS):
                start = time.perf_counter()
                call()
                if i:
                    times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    print(f"batch {BATCH}, {SIZE} px, {FACES} faces per photo; step: {medians['step']:.0f} ms\n")
    print(f"| matching | ms | share of a step | additional MB with {CROWD} faces per photo |")
    print("|---|---|---|---|")
    for name in MATCHINGS:
        command = [sys.executable, __file__, "--memory", name]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        more = json.loads(result.stdout.splitlines()[-1])
        print(f"| {name} | {medians[name]:.1f} | {100 * medians[name] / medians['step']:.1f} % | {more:.0f} |")


if __name__ == "__main__":
    main()
