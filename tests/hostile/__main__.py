"""Attack the package with inputs made from a seed, and print what held: python -m tests.hostile --seed 0

Run it in the root of the repository. `--all` adds what takes minutes: TensorFlow's readers, damaged graphs, kills at
random moments, signals, two processes in one folder, memory over 600 sizes, Ray, and a training run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from . import answers, binaries, crafted_graphs, models, readers, system, train_killed
from .harness import Row

QUICK = {
    "json": readers.foreign_json,
    "labels": readers.labels,
    "photos": binaries.photos,
    "weights": binaries.weights,
    "embeddings": binaries.verification_files,
    "answers": answers.answers,
    "files": system.files,
    "streams": system.streams,
}


def graphs(chance: random.Random, count: int) -> Iterator[Row]:
    """Damaged graphs of the bundled `.tflite` and of further models, each opened in a process with limits."""
    from retinaface_tf import presets

    bundled, _ = presets.artifacts(presets.load("mobilenet025_wider"))["tflite"]
    for path in (bundled, *map(Path, system.MODELS)):
        if path.suffix in (".tflite", ".onnx"):
            outcomes = crafted_graphs.attack(path, count)
            row = Row(f"graphs: damaged {path.suffix}", outcomes.total())
            for outcome, number in outcomes.items():
                row.faults += [outcome] * (number if outcome not in crafted_graphs.HELD else 0)
            yield row


def training(chance: random.Random, count: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for kind, tried, held, faults in train_killed.attack(Path(folder), chance.randrange(1000), 10):
            yield Row(kind, tried, faults[: tried - held] if held < tried else [])


LONG = {
    "models": models.models,
    "graphs": graphs,
    "kills": system.kills,
    "signals": system.signals,
    "rivals": system.rivals,
    "sizes": system.sizes,
    "ray": system.ray_batch,
    "training": training,
}
FEW = {"kills": 10, "ray": 3, "graphs": 60, "models": 100}  # at most, of what takes seconds each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="inputs of each kind, default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=[*QUICK, *LONG], help="these kinds alone")
    parser.add_argument("--all", action="store_true", help="also what takes minutes")
    parser.add_argument("--model", nargs="+", default=[], help="further models, for the attacks on graphs and memory")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON too")
    args = parser.parse_args()
    system.MODELS += [str(Path(path).resolve()) for path in args.model]
    kinds = {**QUICK, **LONG} if args.all or args.only else QUICK
    rows, begun = [], time.monotonic()
    print(f"{'kind':66} {'tried':>6} {'held':>6}")
    for name, attack in kinds.items():
        if args.only and name not in args.only:
            continue
        count = min(args.count, FEW.get(name, args.count))
        for row in attack(random.Random(args.seed), count):
            rows.append(row)
            print(f"{row.kind:66} {row.tried:6,} {row.held:6,}", flush=True)
            for fault in row.faults:
                print(f"    {fault[:400]}", flush=True)
    tried, held = sum(row.tried for row in rows), sum(row.held for row in rows)
    print(f"{'all':66} {tried:6,} {held:6,}   seed {args.seed}, {time.monotonic() - begun:.0f} s")
    if args.json:
        Path(args.json).write_text(json.dumps([[row.kind, row.tried, row.held] for row in rows]) + "\n")
    return int(held < tried)


if __name__ == "__main__":
    sys.exit(main())
