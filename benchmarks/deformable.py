"""What deformable convolutions cost beside plain ones: layers of the network's shapes, the network, and its .tflite.

    python benchmarks/deformable.py

All contenders run in turn in one process, on one thread; what counts is the processor's time, so that other programs
don't. Offsets are random, half a pixel wide: a gather costs the same wherever it looks, but for the cache.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

SHAPES = ((80, 64, 64), (80, 64, 32), (80, 64, 16), (80, 16, 16))  # side, channels in, channels out: P3 at 640 pixels
VERSIONS = (None, "v1", "v2")


def block(channels, filters, version):
    """A convolution as the network has it: a built `ConvBlock`."""
    from retinaface_tf.network.conv_block import ConvBlock

    made = ConvBlock(filters, 3, negative_slope=0.1, deformable=version)
    made.build((None, None, None, channels))
    move(made)
    return made


def move(layer, seed=0):
    """Give every convolution of offsets under a layer some to say."""
    random = np.random.default_rng(seed)
    for variable in layer.variables:
        if "/offsets/" in variable.path or variable.path.startswith("offsets/"):
            variable.assign(random.normal(0, 0.5 if variable.path.endswith("bias") else 0.005, variable.shape))


def forward(layer):
    return tf.function(lambda x: layer(x, training=False), autograph=False)


def forward_and_backward(layer):
    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(value, [x, *layer.trainable_variables])

    return step


def medians(calls, rounds):
    """Milliseconds of each call, all in turn: dict name -> float."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = time.process_time()
            tf.nest.map_structure(np.asarray, call())
            if turn >= 2:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def row(label, times, names):
    """A line of the table: milliseconds, and for all but the first the ratio to it."""
    first = times[names[0]]
    cells = [f"{first:.1f}"] + [f"{times[name]:.1f} ({times[name] / first:.1f})" for name in names[1:]]
    print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def layers(rounds):
    print("| 3x3 convolution | plain, ms | v1, ms (ratio) | v2, ms (ratio) |\n|---|---|---|---|")
    for side, channels, filters in SHAPES:
        x = tf.random.normal((1, side, side, channels), seed=0)
        for name, make in (("forward", forward), ("with gradients", forward_and_backward)):
            steps = {version: make(block(channels, filters, version)) for version in VERSIONS}
            times = medians({v: lambda step=step, x=x: step(x) for v, step in steps.items()}, rounds)
            row(f"{side} x {side}, {channels} to {filters}, {name}", times, VERSIONS)


def networks(rounds, height, width):
    from ai_edge_litert.interpreter import Interpreter

    from retinaface_tf import RetinaFace
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite
    from retinaface_tf.training.build import warm_start

    bundled = RetinaFace.from_preset("mobilenet025_wider")
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    python, lite = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for version in VERSIONS:
            model = RetinaFace(**{**bundled.get_config(), "deformable": version})
            warm_start(model, bundled)
            move(model)
            python[version] = lambda model=model: model.detect(photo, close_ups=False).boxes
            path = export_tflite(model, Path(folder) / f"{version}.tflite", ExportOptions(size=(height, width)))
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], photo[None])
            lite[version] = lambda interpreter=interpreter: interpreter.invoke() or ()
        print(
            f"\n| mobilenet025, {width} x {height} | plain, ms | v1, ms (ratio) | v2, ms (ratio) |\n|---|---|---|---|"
        )
        row("`detect`", medians(python, rounds), VERSIONS)
        row("the .tflite", medians(lite, rounds), VERSIONS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers-only", action="store_true", help="without the network")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", default="640x480", help="of the network, WIDTHxHEIGHT")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    width, height = map(int, args.size.split("x"))
    print(f"one thread, medians of {args.rounds} calls in turn\n")
    layers(args.rounds)
    if not args.layers_only:
        networks(args.rounds, height, width)


if __name__ == "__main__":
    main()
