"""How fast is scoring, how much memory does it take, and what do batches and processes give a run?

    python benchmarks/evaluation.py --ground-truth DIR
    python benchmarks/evaluation.py --ground-truth DIR --images DIR --preset mobilenet025_wider

The first times all of WIDER FACE val (3,226 photos) with 100 to 200 synthetic detections each. The second also times
the runner over the photos in DIR: one image a call, batches, and two processes. Close other programs.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.evaluation.detection_files import ImageDetections, read_detections, write_detection_file
from retinaface_tf.evaluation.runner import run_detector
from retinaface_tf.evaluation.widerface import evaluate_widerface, report_widerface


def synthetic_detections(ground_truth, seed=0):
    """100 to 200 shaken copies of each photo's faces, with random scores."""
    rng = np.random.default_rng(seed)
    offsets = ground_truth.offsets()
    found = {}
    for index, name in enumerate(ground_truth.names):
        faces = ground_truth.boxes[offsets[index] : offsets[index + 1]]
        boxes = faces[rng.integers(0, len(faces), rng.integers(100, 201))]
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
        boxes = boxes + rng.normal(0, 0.15, boxes.shape) * np.tile(sides, 2)
        found[name] = ImageDetections(boxes, rng.random(len(boxes)))
    return found


def timed(label, function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    print(f"{label:<48}{time.perf_counter() - start:8.2f} s")
    return result


def time_scoring(directory):
    """Reading, scoring and reporting, and the peak memory of all of it."""
    ground_truth = timed("read the four .mat files", read_wider_ground_truth, directory)
    detections = synthetic_detections(ground_truth)
    print(f"{sum(len(found.scores) for found in detections.values())} detections")
    with tempfile.TemporaryDirectory() as folder:
        for name, found in detections.items():
            write_detection_file(Path(folder) / f"{name}.txt", found)
        detections = timed("read 3,226 result files", read_detections, folder, ground_truth.names)
    timed("Easy, Medium, Hard", evaluate_widerface, ground_truth, detections)
    print(f"peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    timed("whole report without intervals", report_widerface, ground_truth, detections)
    timed("whole report, 1,000 bootstrap draws", report_widerface, ground_truth, detections, resamples=1000)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def time_running(photos, preset, protocol, batch_size, part, parts):
    """Images a second of one process over its part of the photos, model start and first call left out."""
    from retinaface_tf import RetinaFace

    model = RetinaFace.from_preset(preset)
    options = {"score_threshold": 0.02, "resize": None, "close_ups": False}
    if batch_size > 1:

        def detect(images):
            return model.detect(images, batch_size=batch_size, **options)
    else:

        def detect(image):
            return model.detect(image, **options)

    mine = dict(list(photos.items())[part::parts])
    for repeat in range(2):
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"protocol": protocol, "batch_size": batch_size, "progress": False}
            summary = run_detector(detect, mine, folder, **quiet)
        if repeat:
            print(f"{summary.images_per_second:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--preset", default="mobilenet025_wider")
    parser.add_argument("--protocol", default="vga")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    photos = {path.stem: path for path in sorted(args.images.glob("*.jpg"))} if args.images else {}
    if args.worker:
        batch_size, part, parts = map(int, args.worker.split(","))
        time_running(photos, args.preset, args.protocol, batch_size, part, parts)
        return
    if args.ground_truth:
        time_scoring(args.ground_truth)
    for label, workers in {
        "one image a call": ["1,0,1"],
        "batches of 4": ["4,0,1"],
        "batches of 16": ["16,0,1"],
        "two processes, one image a call": ["1,0,2", "1,1,2"],
    }.items():
        if not photos:
            break
        words = [sys.executable, __file__, "--images", args.images, "--preset", args.preset]
        words += ["--protocol", args.protocol, "--worker"]
        running = [subprocess.Popen([*words, worker], stdout=subprocess.PIPE, text=True) for worker in workers]
        speeds = [float(process.communicate()[0].split()[-1]) for process in running]
        print(f"{args.protocol}, {label:<36}{sum(speeds):8.2f} images/s")


if __name__ == "__main__":
    main()
