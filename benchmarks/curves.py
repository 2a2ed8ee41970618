"""Losses and validation AP of training runs, as a picture.

    python benchmarks/curves.py runs/first runs/second --output curves.png

Left: each loss of the first run, mean of ten rows of `steps.csv`. Right: validation AP by step from every `log.csv`
that has any.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

NOT_LOSSES = ("step", "loss", "learning_rate", "faces_per_second")
SMOOTHED = 10  # rows


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    steps = rows_of(args.runs[0] / "steps.csv")
    for name in [name for name in steps[0] if name not in NOT_LOSSES]:
        values = np.array([float(row[name]) for row in steps])
        window = min(SMOOTHED, len(values))
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        left.plot([int(row["step"]) for row in steps][window - 1 :], smooth, label=name)
    left.set(xlabel="step", ylabel="loss", ylim=(0, None), title=args.runs[0].name)
    left.legend()
    for run in args.runs:
        rows = rows_of(run / "log.csv")
        for key in [key for key in rows[0] if key.startswith("val_ap_")]:
            points = [(int(row["step"]), float(row[key])) for row in rows if row[key] not in ("", "nan")]
            if points:
                right.plot(*zip(*points, strict=True), marker=".", label=run.name)
    right.set(xlabel="step", ylabel="AP at IoU 0.5", title="validation")
    right.grid(alpha=0.3)
    right.legend()
    figure.tight_layout()
    figure.savefig(args.output, dpi=100)


if __name__ == "__main__":
    main()
