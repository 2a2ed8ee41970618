"""CPU time of candidate networks beside the bundled one: python benchmarks/candidates.py

LiteRT and ONNX Runtime, one thread, 640x480, network with decoding and NMS. Every row is run in turns with all others,
so that what else the machine does falls on all alike, and times are CPU time: other programs do not count. Candidates
have random weights and find no face: what they cost is measured, not what they would find. `--calibration`, a folder
of photos, adds int8.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from retinaface_tf import RetinaFace, load
from retinaface_tf.export.certificate import bundled_photos
from retinaface_tf.network import backbones, build
from retinaface_tf.network.context_module import ContextModule
from retinaface_tf.network.conv_block import ConvBlock

BUNDLED = "mobilenet025_wider"
# Channels at width 1 and strides, as `MOBILENET_STAGES`: from stride 32 to strides 4 and 8, as SCRFD does.
MOVED = (
    ((64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1)),
    ((512, 2), (512, 1)),
)
SMALL = {"P3": (8, 16, 32), "P4": (64, 128), "P5": (256, 512)}
FINE = {"P2": (8,), "P3": (16, 32), "P4": (64, 128), "P5": (256, 512)}
FINER = {"P2": (8, 16), "P3": (32, 64), "P4": (128,), "P5": (256, 512)}
CANDIDATES = {  # name -> arguments of `RetinaFace`, levels with the lighter context module
    BUNDLED: ({}, ()),
    "pyramid of 32 channels": ({"num_filters": 32}, ()),
    "one 3x3 convolution as context of P4 and P5": ({}, ("P4", "P5")),
    "compute moved from stride 32 to 4 and 8": ({"backbone": "moved"}, ()),
    "standard convolutions with few channels first": ({"backbone": "standard_first"}, ()),
    "a third anchor of 8 pixels on P3": ({"anchors": SMALL}, ()),
    "P2, 64 channels": ({"anchors": FINE}, ()),
    "P2, 32 channels": ({"anchors": FINE, "num_filters": 32}, ()),
    "P2, 32 channels, one convolution as its context": ({"anchors": FINE, "num_filters": 32}, ("P2",)),
    "P2 for 8 and 16 pixels, 32 channels": ({"anchors": FINER, "num_filters": 32}, ()),
    "P2 for 8 and 16 pixels, 24 channels": ({"anchors": FINER, "num_filters": 24}, ()),
    "moved, 32 channels, third anchor": ({"backbone": "moved", "anchors": SMALL, "num_filters": 32}, ()),
    "backbone twice as wide, 32 channels": ({"backbone": "mobilenet_v1_050", "num_filters": 32}, ()),
}


def moved(inputs, folded, dtype):
    with mock.patch.object(backbones, "MOBILENET_STAGES", MOVED):
        return backbones.mobilenet_v1(inputs, folded, dtype, width=0.25)


def standard_first(inputs, folded, dtype):
    """As EResFD: no depthwise convolutions up to stride 4."""
    options = {"negative_slope": 0.1, "folded": folded, "dtype": dtype}
    x, features = inputs, {}
    for index, (channels, stride) in enumerate(((8, 2), (16, 2), (16, 1))):
        x = ConvBlock(channels, 3, strides=stride, name=f"body_first_{index}", **options)(x)
    features["C2"] = x
    for level, channels, blocks in (("C3", 64, 2), ("C4", 128, 6), ("C5", 256, 2)):
        for index in range(blocks):
            name, stride = f"body_{level}_{index}", 1 if index else 2
            x = ConvBlock(None, 3, strides=stride, depthwise=True, name=f"{name}_depthwise", **options)(x)
            x = ConvBlock(channels, 1, name=f"{name}_pointwise", **options)(x)
        features[level] = x
    return features


def contexts(light):
    """`build_contexts` with one convolution at the levels `light`."""

    def make(pyramid, num_filters, slope, shared, prefix, **options):
        def module(level):
            if level in light:
                return ConvBlock(num_filters, 3, negative_slope=0.0, name=f"context_{level}", **options)
            return ContextModule(num_filters, slope, name=f"context_{level}", **options)

        return {level: module(level)(x) for level, x in pyramid.items()}

    return make


def export(name, folder, calibration=None):
    """The `.tflite` and `.onnx` file of a candidate, for any size: (parameters, dict runtime -> path)."""
    arguments, light = CANDIDATES[name]
    with mock.patch.object(build, "build_contexts", contexts(light)):
        if name == BUNDLED:
            model = RetinaFace.from_preset(BUNDLED)
        else:
            model = RetinaFace(**arguments)
            for level, sizes in model.anchor_generator.sizes.items():
                model.get_layer(f"face_head_{level}").convolution.bias.assign([9.0, -9.0] * len(sizes))
        paths = {}
        for runtime, end in {"LiteRT": ".tflite", "ONNX Runtime": ".onnx", "LiteRT, int8": "_int8.tflite"}.items():
            int8 = {"quantize": "int8", "calibration": calibration} if "int8" in end else {}
            if not int8 or calibration:
                path = folder / f"{list(CANDIDATES).index(name)}{end}"
                paths[runtime] = model.export(path, **int8)
        return model.fold().count_params(), paths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--calibration", type=Path, metavar="PHOTOS", help="folder of photos, for int8")
    args = parser.parse_args()
    last = backbones.BACKBONES["mobilenet_v1_025"].last_float_layer
    for function in (moved, standard_first):
        backbones.BACKBONES[function.__name__] = backbones.Backbone(function, (), last)
    image = bundled_photos()["four faces 640x480"]
    window = np.array([[0, 0, 640, 480]], np.float32)
    names = [BUNDLED, *(name for name in args.candidates if name != BUNDLED)]
    with tempfile.TemporaryDirectory() as folder:
        made = {name: export(name, Path(folder), args.calibration) for name in names}
        runs = {
            (name, runtime): load(path, threads=1).runtime.run
            for name in names
            for runtime, path in made[name][1].items()
        }
        times = {key: [] for key in runs}
        for turn in range(args.runs + 3):
            for key, run in runs.items():
                start = time.process_time()
                run(image[None], window, score_threshold=0.5, nms_threshold=0.4, max_detections=750)
                if turn >= 3:
                    times[key].append(1000 * (time.process_time() - start))
    medians = {key: statistics.median(values) for key, values in times.items()}
    runtimes = list(made[BUNDLED][1])
    print(f"640x480, one thread, CPU time, medians of {args.runs} calls in turns; ratios to LiteRT of the first row\n")
    print(f"| | parameters | {' | '.join(f'{runtime}, ms | ratio' for runtime in runtimes)} |")
    print("|---|---" + "|---|---" * len(runtimes) + "|")
    for name in names:
        cells = (f"{medians[name, r]:.1f} | {medians[name, r] / medians[BUNDLED, 'LiteRT']:.2f}" for r in runtimes)
        print(f"| {name} | {made[name][0]:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
