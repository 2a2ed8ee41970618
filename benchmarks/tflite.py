"""Time of the TFLite artifacts beside each other: python benchmarks/tflite.py --calibration photos/

Every row is run in turns with all others, so that what else the machine does falls on all alike. The first row, the
network alone in 32-bit floats, is what the others are divided by.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from retinaface_tf import RetinaFace
from retinaface_tf.cli.options import width_and_height as parse_size
from retinaface_tf.export.calibration import calibration_photos
from retinaface_tf.export.converter import convert, shapes
from retinaface_tf.export.fixed_graph import FixedGraph
from retinaface_tf.export.graft import graft
from retinaface_tf.export.int8 import convert_features
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.export.trial_photos import bundled_photos
from retinaface_tf.image.letterbox import fit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibration", required=True, metavar="DIR", help="photos for int8")
    parser.add_argument("--size", type=parse_size, default=(480, 640), metavar="WxH")
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()
    fill = [123, 117, 104]
    model = RetinaFace.from_preset("mobilenet025_wider")
    photos = calibration_photos(args.calibration, args.size, fill)
    image = fit(bundled_photos()["four faces 640x480"], args.size, fill).canvas[None]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, network in (("network fp32", floats(model, args.size)), ("network int8", integers(model, photos))):
            files[name] = Path(folder) / f"{name}.tflite"
            files[name].write_bytes(flatbuffer_utils.convert_object_to_bytearray(network))
        for precision in ("fp32", "fp16", "dynamic", "int8"):
            files[precision] = Path(folder) / f"{precision}.tflite"
            quantize = None if precision == "fp32" else precision
            given = {"calibration": photos} if precision == "int8" else {}
            export_tflite(model, files[precision], ExportOptions(size=args.size), quantize=quantize, **given)
        print(f"{args.size[1]} x {args.size[0]}, medians of {args.runs} calls in turns")
        print("| | kB | 1 thread, ms | / network fp32 | 2 threads, ms | / network fp32 |\n|---|---|---|---|---|---|")
        columns = [measure(files, image, threads, args.runs) for threads in (1, 2)]
        for name, path in files.items():
            cells = [f"{times[name]:.2f} | {times[name] / times['network fp32']:.2f}" for times in columns]
            print(f"| {name} | {path.stat().st_size / 1000:.0f} | {' | '.join(cells)} |")


def floats(model, size):
    """The network alone, to raw predictions."""
    network = model.fold()
    return frozen(lambda images: network(images, training=False), [(1, *size, 3)], tf.uint8)


def integers(model, photos):
    """The same with its middle in integers."""
    graph = FixedGraph(model.fold(), *photos[0].shape[:2], top_k=1, max_detections=1)
    whole = convert_features(graph, photos)
    heads = [graph.network.get_layer(f"heads_{level}") for level in graph.levels]
    last = frozen(lambda *maps: [head(one) for head, one in zip(heads, maps, strict=True)], shapes(whole), tf.float32)
    graft(whole, last, feeds=list(range(len(heads))))
    return whole


def frozen(function, shapes_in, dtype):
    signature = [tf.TensorSpec(shape, dtype, name=f"input_{i}") for i, shape in enumerate(shapes_in)]
    traced = tf.function(function, input_signature=signature, autograph=False)
    return convert(convert_variables_to_constants_v2(traced.get_concrete_function()))


def measure(files, image, threads, runs):
    """Median milliseconds of each file: dict."""
    interpreters = {name: Interpreter(str(path), num_threads=threads) for name, path in files.items()}
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(image))
    times = {name: [] for name in files}
    for turn in range(runs + 3):
        for name, interpreter in interpreters.items():
            start = time.perf_counter()
            interpreter.invoke()
            if turn >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
