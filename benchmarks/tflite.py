"""Time of the TFLite artifacts beside each other: python benchmarks/tflite.py --calibration photos/

Every row is run in turns with all others, so that what else the machine does falls on all alike. The first row, the
file of any size in 32-bit floats, is what the others are divided by. Times are CPU time: other programs do not count.
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
from ai_edge_litert.interpreter import Interpreter

from retinaface_tf import RetinaFace
from retinaface_tf.cli.options import width_and_height as parse_size
from retinaface_tf.export.certificate import bundled_photos
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.tflite import export_tflite
from retinaface_tf.image.letterbox import fit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibration", required=True, metavar="DIR", help="photos for int8")
    parser.add_argument("--size", type=parse_size, default=(480, 640), metavar="WxH")
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()
    fill = [123, 117, 104]
    model = RetinaFace.from_preset("mobilenet025_wider")
    image = fit(bundled_photos()["four faces 640x480"], args.size, fill).canvas[None]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for kind, size in (("any size", None), ("one size", args.size)):
            for precision in ("fp32", "fp16", "dynamic", "int8"):
                path = files[f"{kind} {precision}"] = Path(folder) / f"{kind} {precision}.tflite"
                quantize = None if precision == "fp32" else precision
                given = {"calibration": args.calibration} if precision == "int8" else {}
                export_tflite(model, path, ExportOptions(size=size), quantize=quantize, **given)
        print(f"{args.size[1]} x {args.size[0]}, CPU time, medians of {args.runs} calls in turns")
        print("| | kB | 1 thread, ms | / any size fp32 | 2 threads, ms | / any size fp32 |\n|---|---|---|---|---|---|")
        columns = [measure(files, image, threads, args.runs) for threads in (1, 2)]
        for name, path in files.items():
            cells = [f"{times[name]:.2f} | {times[name] / times['any size fp32']:.2f}" for times in columns]
            print(f"| {name} | {path.stat().st_size / 1000:.0f} | {' | '.join(cells)} |")


def measure(files, image, threads, runs):
    """Median milliseconds of each file: dict."""
    interpreters = {name: Interpreter(str(path), num_threads=threads) for name, path in files.items()}
    for interpreter in interpreters.values():
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, image.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, np.ascontiguousarray(image))
    times = {name: [] for name in files}
    for turn in range(runs + 3):
        for name, interpreter in interpreters.items():
            start = time.process_time()
            interpreter.invoke()
            if turn >= 3:
                times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
