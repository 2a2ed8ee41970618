"""`retinaface-tf batch` beside the plain command: 2,000 files, two workers, one killed, the run broken off and resumed.

    python benchmarks/batch.py

The photos are made: pieces of the bundled one at many sizes, one of a hundred broken. Linux alone: the workers are
found in /proc.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PART_SIZE = 50


def make_photos(folder, count):
    random = np.random.default_rng(0)
    astronaut = Image.open("retinaface_tf/samples/astronaut.jpg")
    for number in range(count):
        path = folder / f"{number % 20:02}" / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        if number % 100 == 50:
            path.write_bytes(b"broken" * number)
            continue
        left, top = random.integers(0, 170, 2)
        size = tuple(int(side) for side in random.integers(100, 400, 2))
        astronaut.crop((left, top, left + 330, top + 300)).resize(size).save(path)


def descendants(pid):
    """(pid, command line) of all processes below one."""
    below, found = {}, []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            line = (status.parent / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        below.setdefault(parent, []).append((int(status.parent.name), line))
    waiting = [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += [child for child, _ in children]
    return found


def wait_for_parts(output, number, process):
    while len(list(output.glob("part-*.parquet"))) < number:
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself, with {process.returncode}")
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--model", default="mobilenet025_wider", help="preset or path, default: %(default)s")
    args = parser.parse_args()
    tool = [sys.executable, "-m", "retinaface_tf"]
    which = ["--model" if Path(args.model).exists() else "--preset", args.model]
    with tempfile.TemporaryDirectory() as folder:
        folder, output = Path(folder), Path(folder) / "rows"
        photos = folder / "photos"
        photos.mkdir()
        make_photos(photos, args.photos)

        start = time.perf_counter()
        report = folder / "report.json"
        subprocess.run([*tool, "detect", photos, *which, "--json", report, "--quiet"], stderr=subprocess.DEVNULL)
        plain_time = time.perf_counter() - start
        plain = {entry["file"]: entry for entry in json.loads(report.read_text("utf-8"))}

        batch = [*tool, "batch", photos, *which, "--output", output, "--part-size", str(PART_SIZE), "--workers", "2"]
        parts = -(-args.photos // PART_SIZE)
        start = time.perf_counter()
        process = subprocess.Popen(batch, stderr=subprocess.DEVNULL)
        wait_for_parts(output, parts // 4, process)
        workers = [pid for pid, line in descendants(process.pid) if line.startswith("ray::") and "MapWorker" in line]
        os.kill(workers[0], signal.SIGKILL)
        print(
            f"killed one of {len(workers)} workers when {len(list(output.glob('part-*')))} of {parts} parts were there"
        )
        wait_for_parts(output, parts * 3 // 4, process)
        process.send_signal(signal.SIGINT)
        code = process.wait()
        print(f"interrupted when {len(list(output.glob('part-*')))} parts were there: exit code {code}")
        before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
        code = subprocess.run(batch, stderr=subprocess.DEVNULL).returncode
        batch_time = time.perf_counter() - start
        kept = sum(path.stat().st_mtime_ns == before.get(path.name) for path in output.glob("part-*"))
        print(f"the same command again: exit code {code}; {kept} of {len(before)} parts were left as they were")

        compare(plain, output)
        print(f"plain command {plain_time:.0f} s, batch with its two starts {batch_time:.0f} s")


def compare(plain, output):
    import pyarrow.parquet as pq

    rows = [row for path in output.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    files = [row["file"] for row in rows]
    print(f"{len(rows)} rows, {len(set(files))} photos; the plain command reports {len(plain)}")
    print(f"lost {len(plain.keys() - set(files))}, doubled {len(files) - len(set(files))}")
    worst, other = 0.0, 0
    for row in rows:
        entry = plain[row["file"]]
        faces = entry.get("faces", [])
        if row["error"] != entry.get("error") or len(faces) != len(row["faces"]):
            other += 1
            continue
        for face, values in zip(faces, row["faces"], strict=True):
            pixels = np.array(list(values.values()))[1:]
            worst = max(worst, float(np.abs(pixels - [*face["box"], *np.ravel(face["landmarks"])]).max()))
    print(f"rows with another number of faces or another error: {other}; largest difference {worst:.4f} pixels")
    print(f"{sum(len(row['faces']) for row in rows)} faces, {sum(row['error'] is not None for row in rows)} errors")


if __name__ == "__main__":
    main()
