"""Time and memory of the paper's parts: levels P2 to P6 with three anchors each, the cascade, deformable convolutions.

    python benchmarks/levels.py --pixels 640 --batch 2

Each network runs in a process of its own, whose peak memory is that of the whole process, TensorFlow's half a gigabyte
included. All have the body MobileNetV1 x0.25 and 64 filters. Times are medians of the processor's time on one thread,
so that other programs don't count.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

PAPER = {
    "P2": (16, 20.16, 25.4),
    "P3": (32, 40.32, 50.8),
    "P4": (64, 80.63, 101.59),
    "P5": (128, 161.27, 203.19),
    "P6": (256, 322.54, 406.37),
}
NETWORKS = {
    "P3 to P5, two anchors": {},
    "P2 to P6, three anchors": {"anchors": PAPER},
    "and a cascade": {"anchors": PAPER, "cascade": True},
    "and deformable (v2)": {"anchors": PAPER, "cascade": True, "deformable": "v2"},
}


def measure(name, pixels, batch, rounds, train):
    """Milliseconds and megabytes of `detect` or of a training step: dict."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from retinaface_tf import RetinaFace
    from retinaface_tf.training.build import compile_model
    from retinaface_tf.training.config import TrainConfig

    model = RetinaFace(**NETWORKS[name])
    random = np.random.default_rng(0)
    if train:
        compile_model(model, TrainConfig(), steps_per_epoch=1000)
        low = random.uniform(0, pixels * 0.8, (batch, 32, 2))
        boxes = np.concatenate([low, low + random.uniform(16, pixels / 8, (batch, 32, 1))], axis=-1)
        faces = {
            "boxes": boxes.astype("float32"),
            "landmarks": np.repeat(boxes[:, :, None, :2], 5, axis=2).astype("float32"),
            "visible": np.ones((batch, 32, 5), "int32"),
        }
        images = random.integers(0, 256, (batch, pixels, pixels, 3), np.uint8)

        def call():
            return model.train_on_batch(images, faces)
    else:
        photo = random.integers(0, 256, (pixels, pixels, 3), np.uint8)

        def call():
            return model.detect(photo, close_ups=False)

    times = []
    for turn in range(rounds + 1):
        start = time.process_time()
        call()
        if turn:
            times.append(1e3 * (time.process_time() - start))
    return {
        "anchors": model.anchor_generator.count(pixels, pixels),
        "parameters": model.count_params(),
        "ms": float(np.median(times)),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=640)
    parser.add_argument("--batch", type=int, default=2, help="of a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.name:
        json.dump(measure(args.name, args.pixels, args.batch, args.rounds, args.train), sys.stdout)
        return
    print(
        f"{args.pixels} x {args.pixels}, one thread, medians of {args.rounds}; training steps of {args.batch} images\n"
    )
    print("| | anchors | parameters | `detect`, ms | peak, MB | training step, ms | peak, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.networks:
        found = []
        for train in ([], ["--train"]):
            numbers = [f"--{key}={getattr(args, key)}" for key in ("pixels", "batch", "rounds")]
            command = [sys.executable, __file__, *numbers, "--name", name, *train]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(result.stdout.splitlines()[-1]))
        cells = [f"{one['ms']:.0f} | {one['mb']:.0f}" for one in found]
        print(f"| {name} | {found[0]['anchors']:,} | {found[0]['parameters']:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
