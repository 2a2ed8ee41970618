"""Kill `train` at random moments and stop it by signals: nothing may be lost, nothing doubled.

    python tests/hostile/train_killed.py [--seed 0] [--kills 10]

A small run is made once without interruption. The same run is killed (SIGKILL) at random moments and started again each
time, until it ends; then others are stopped by SIGINT, SIGTERM and SIGHUP. Prints a table of what was tried and what
held; the exit code is 1 if something did not.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

STEPS, EPOCHS = 6, 4
PRESET = {"architecture": {"backbone": "mobilenet_v1_025", "anchors": {"P5": [24, 48]}, "num_filters": 8}}
OPTIONS = {
    "steps_per_epoch": STEPS,
    "epochs": EPOCHS,
    "log_steps": 1,
    "checkpoint_steps": 2,
    "validate_every": 2,
    "data.batch_size": 2,
    "data.image_size": 64,
    "data.shuffle_buffer": 8,
    "optimizer.average": 0.9,
    "schedule.kind": "cosine",
}
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def make_data(folder, seed):
    """Six photos of noise with a brighter face each, as shards and as a CSV: (shards, labels, photos)."""
    numbers = np.random.default_rng(seed)
    photos = folder / "photos"
    photos.mkdir()
    lines = ["file,x1,y1,x2,y2"]
    for index in range(6):
        pixels = numbers.integers(0, 120, (96, 128, 3)).astype("uint8")
        x, y = (int(start) for start in numbers.integers(0, 60, 2))
        pixels[y : y + 34, x : x + 34] += 100
        Image.fromarray(pixels).save(photos / f"{index}.png")
        lines.append(f"{index}.png,{x},{y},{x + 34},{y + 34}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    words = ["convert", "custom", "--images", photos, "--annotations", labels, "--output", folder / "shards"]
    subprocess.run(program(*words, "--shards", 2, "--workers", 1, "--quiet"), check=True)
    (folder / "preset").mkdir()
    (folder / "preset" / "preset.json").write_text(json.dumps(PRESET))
    return folder / "shards"


def program(*words):
    return [sys.executable, "-m", "retinaface_tf", *map(str, words)]


def start(folder, output):
    fields = [f"{name}={json.dumps(value)}" for name, value in OPTIONS.items()]
    words = ["train", "--preset", folder / "preset", "--data", folder / "shards", "--validation", folder / "shards"]
    words += ["--output", output, "--quiet", "--no-plots", "--set", *fields]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    return subprocess.Popen(program(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def rows(path):
    """The rows of a log; those that are being written just now are left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: float(cell or "nan") for key, cell in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return []


def run_until(process, output, step, extra):
    """Wait until a step is in the log and some seconds more; False if the process ended before."""
    while process.poll() is None:
        if any(row.get("step", 0) >= step for row in rows(output / "steps.csv")):
            time.sleep(extra)
            return process.poll() is None
        time.sleep(0.02)
    return False


def faults_of(output, whole):
    """What a finished run has lost, doubled or done otherwise than the unbroken one: list of str."""
    from retinaface_tf import RetinaFace

    steps, epochs = rows(output / "steps.csv"), rows(output / "log.csv")
    faults = []
    if [row["step"] for row in steps] != list(range(1, STEPS * EPOCHS + 1)):
        faults.append(f"steps.csv has the steps {[int(row['step']) for row in steps]}")
    if [row["epoch"] for row in epochs] != list(range(EPOCHS + 1)):
        faults.append(f"log.csv has the epochs {[int(row['epoch']) for row in epochs]}")
    if left := [path.name for path in output.rglob("*") if "tmp" in path.name or "_temp" in path.name]:
        faults.append(f"half-written files are left: {left}")
    for name in ("loss", "face", "box", "learning_rate"):
        ours, theirs = ([row.get(name, np.nan) for row in each] for each in (steps, rows(whole / "steps.csv")))
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=1e-3, atol=1e-6):
            faults.append(f"{name} of the steps differs")
    faces = [[row["faces"] for row in rows(each / "log.csv")[1:]] for each in (output, whole)]
    if faces[0] != faces[1]:
        faults.append(f"faces of the epochs differ: {faces}")
    ours, theirs = (RetinaFace.from_preset(str(each / "model.keras")).get_weights() for each in (output, whole))
    if not all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(ours, theirs, strict=True)):
        faults.append("the weights differ")
    return faults


def kill_again_and_again(folder, whole, chance, kills):
    """(times killed, faults) of a run that is killed at random moments until it is done."""
    output, faults, killed = folder / "killed", [], 0
    moments = sorted(chance.randrange(STEPS * EPOCHS) for _ in range(kills))
    for step in moments:
        process = start(folder, output)
        # Somewhere in or between steps, checkpoints, rows, validation; for step 0 while it starts.
        alive = run_until(process, output, step, chance.random() * 0.5) if step else not time.sleep(chance.random() * 8)
        if not alive:
            faults.append(f"it ended before step {step}: {process.communicate()[1][-300:]}")
            break
        process.kill()
        process.communicate()
        killed += 1
    process = start(folder, output)
    _, error = process.communicate()
    if process.returncode:
        return killed, [*faults, f"exit code {process.returncode}: {error[-300:]}"]
    return killed, faults + faults_of(output, whole)


def stop_by_signal(folder, whole, name, chance):
    """Faults of a run that is stopped by a signal once, and resumed."""
    output = folder / name.lower()
    process = start(folder, output)
    if not run_until(process, output, chance.randrange(2, STEPS * EPOCHS - 4), 0.05):
        return [f"it ended before: {process.communicate()[1][-300:]}"]
    process.send_signal(getattr(signal, name))
    _, error = process.communicate()
    faults = []
    if process.returncode != CODES[name]:
        faults.append(f"exit code {process.returncode}, not {CODES[name]}: {error[-300:]}")
    if len(error.strip().splitlines()) != 1 or "Run the same command again" not in error:
        faults.append(f"said: {error[-300:]!r}")
    newest = max((int(path.stem.split("-")[1]) for path in (output / "checkpoints").glob("step-*.index")), default=0)
    if newest != rows(output / "steps.csv")[-1]["step"]:
        faults.append(f"checkpoint of step {newest}, rows up to {rows(output / 'steps.csv')[-1]['step']:.0f}")
    process = start(folder, output)
    _, error = process.communicate()
    if process.returncode:
        return [*faults, f"resumed: exit code {process.returncode}: {error[-300:]}"]
    return faults + faults_of(output, whole)


def attack(folder, seed=0, kills=10):
    """Rows (what, tried, held, faults)."""
    chance = random.Random(seed)
    make_data(folder, seed)
    whole = folder / "whole"
    process = start(folder, whole)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the unbroken run failed: {error}")
    killed, faults = kill_again_and_again(folder, whole, chance, kills)
    table = [("train, killed by SIGKILL", killed, killed if not faults else 0, faults)]
    for name in CODES:
        if hasattr(signal, name):
            faults = stop_by_signal(folder, whole, name, chance)
            table.append((f"train, stopped by {name}", 1, int(not faults), faults))
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = attack(Path(folder), args.seed, args.kills)
    print(f"{'attack':32} {'tried':>6} {'held':>6}")
    for what, tried, held, faults in table:
        print(f"{what:32} {tried:6} {held:6}  {'; '.join(faults)}")
    return int(any(faults for *_, faults in table))


if __name__ == "__main__":
    sys.exit(main())
