"""Draw the plots of docs/models.md, docs/performance.md and docs/notes/small_faces.md from docs/site/measured.json.

    python docs/site/plots.py                  # draw them into docs/pictures/
    python docs/site/plots.py --measure DIR    # first measure our own rows again; DIR as for benchmarks/weights.py

The rows of other detectors were measured once, each with its own pre- and post-processing, and are typed in.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
NUMBERS = ROOT / "docs" / "site" / "measured.json"
PRESETS = ("mobilenet025_wider", "mobilenet025_masked")
HEIGHTS = (0, 8, 16, 32, 64, 128, float("inf"))  # pixels of the photo at its own size
SIZES = ((160, 120), (320, 240), (640, 480), (960, 720), (1280, 960), (1920, 1440))
COLORS = ("#0b8f6a", "#8a63d2", "#e5484d", "#3b6fd4", "#c9771a")  # each has enough contrast on white and on dark gray


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=Path, metavar="DIR")
    args = parser.parse_args()
    numbers = json.loads(NUMBERS.read_text("utf-8"))
    if args.measure:
        numbers |= {"ap_by_height": measure_ap(args.measure), "time_by_size": measure_time()}
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "retinaface_tf", "savefig.bbox": "tight"})
    draw_accuracy(numbers["detectors"])
    draw_ap_by_height(numbers["ap_by_height"])
    draw_time(numbers["time_by_size"])
    draw_steps(numbers["small_faces"])


def measure_ap(data):
    """AP by face height on the 100 stretched WIDER FACE photos: a list of one dict per preset and size."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import weights

    import retinaface_tf
    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.annotations.widerface import read_wider_ground_truth
    from retinaface_tf.evaluation.widerface import ap_by_height, match, subset_ap

    truth = read_wider_ground_truth(data / "wider_ground_truth")
    photos = find_photos(data / "wider_val_squeezed" / "images", truth)
    truth = truth.only(photos)
    sizes = weights.read_sizes(data / "wider_ground_truth" / "val_sizes_and_boxes.txt")
    rows = []
    for preset in PRESETS:
        detector = retinaface_tf.load(preset)
        for size in ("own", "640"):
            detect, found = weights.sized(partial(detector.detect, score_threshold=0.02, resize=None), size), {}
            for name, path in photos.items():
                image = Image.open(path).convert("RGB").resize(sizes[path.stem], Image.Resampling.BICUBIC)
                found[name] = detect(np.asarray(image))
            matching = match(truth, found)
            rows.append({"preset": preset, "size": size})
            rows[-1]["ap"] = {name: round(subset_ap(matching, keep), 3) for name, keep in truth.subsets.items()}
            rows[-1]["by_height"] = [
                {**row, "ap": round(row["ap"], 3)} for row in ap_by_height(truth, matching, edges=HEIGHTS)
            ]
            print(rows[-1], file=sys.stderr)
    return rows


def measure_time():
    """CPU milliseconds of `detect` on one thread by size of the photo, medians: a list of dicts."""
    import retinaface_tf

    detector = retinaface_tf.load("mobilenet025_wider", threads=1)
    photo, rows = Image.open(ROOT / "retinaface_tf" / "samples" / "astronaut.jpg"), []
    for width, height in SIZES:
        image, times = np.asarray(photo.resize((width, height))), []
        for _ in range(3 + max(5, 40 * 640 * 480 // (width * height))):
            start = time.process_time()
            detector.detect(image, close_ups=False, resize=None)
            times.append(time.process_time() - start)
        rows.append({"width": width, "height": height, "ms": round(1000 * float(np.median(times[3:])), 2)})
        print(rows[-1], file=sys.stderr)
    return rows


def draw_accuracy(detectors):
    """AP against time, at two sizes: a vertical line from Hard to Easy for each detector."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True, layout="constrained")
    for axes, size, title in zip(panels, ("own", "640"), ("photos at their own size", "long side 640"), strict=True):
        for detector, color in zip(detectors, COLORS, strict=True):
            x, (easy, medium, hard) = detector["time"][size], detector[size]
            axes.plot([x, x], [hard, max(easy, medium)], color=color, lw=1.5, label=detector["name"])
            axes.plot(x, easy, "^", x, medium, "o", x, hard, "v", color=color)
        axes.set(title=title, xlabel="CPU time (one pass of the Keras model = 1)", xlim=(0.4, 2.8), ylim=(0.4, 0.9))
        axes.grid(color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("average precision")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3)
    for marker, name in (("^", "Easy"), ("o", "Medium"), ("v", "Hard")):
        panels[1].plot([], [], marker, color="#777777", label=name)
    panels[1].legend(*(each[-3:] for each in panels[1].get_legend_handles_labels()), loc="lower right", fontsize=9)
    save(figure, "accuracy.svg")


def draw_ap_by_height(rows):
    figure, axes = plt.subplots(figsize=(7, 3.6))
    bands = rows[0]["by_height"]
    names = [f"{b['from']:.0f} to {b['to']:.0f}" if b["to"] else f"{b['from']:.0f} or more" for b in bands]
    for row, style, color in zip(
        rows, ("-o", "--o", "-s", "--s"), (COLORS[0], COLORS[0], *COLORS[1:2] * 2), strict=True
    ):
        size = {"own": "own size", "640": "long side 640"}[row["size"]]
        axes.plot([b["ap"] for b in row["by_height"]], style, color=color, label=f"{row['preset']}, {size}")
    ticks = [f"{name}\n{band['faces']:,} faces" for name, band in zip(names, bands, strict=True)]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=9)
    axes.set(xlabel="height of the face in the photo, pixels", ylabel="average precision", ylim=(0, 1))
    axes.grid(color="#dddddd", lw=0.6)
    axes.legend(fontsize=9)
    save(figure, "ap_by_height.svg")


def draw_time(rows):
    figure, axes = plt.subplots(figsize=(7, 3.6))
    pixels, times = [row["width"] * row["height"] / 1e6 for row in rows], [row["ms"] for row in rows]
    axes.plot(pixels, times, "-o", color=COLORS[0])
    for row, x, y in zip(rows, pixels, times, strict=True):
        text = f"{row['width']}x{row['height']}: {row['ms']:.{0 if row['ms'] >= 10 else 1}f} ms"
        axes.annotate(text, (x, y), (8, -4), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", yscale="log", xlim=(0.015, 20), ylim=(1, 400))
    axes.set_xticks([0.03, 0.1, 0.3, 1, 3, 10], ["0.03", "0.1", "0.3", "1", "3", "10"])
    axes.set_yticks([1, 3, 10, 30, 100, 300], ["1", "3", "10", "30", "100", "300"])
    axes.set(xlabel="megapixels", ylabel="CPU time of `detect`, ms")
    axes.minorticks_off()
    axes.grid(color="#dddddd", lw=0.6)
    save(figure, "time_by_size.svg")


def draw_steps(run):
    """AP against steps of the run that became `mobilenet025_crowd`, the preset before it and the blend after it."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    last = run["steps"][-1]
    for axes, size, title in zip(panels, ("own", "640"), ("photos at their own size", "long side 640"), strict=True):
        rows = zip(("Easy", "Medium", "Hard"), zip(*run[size], strict=True), run["before"][size], COLORS, strict=False)
        for (name, values, before, color), blend in zip(rows, run["blend"][size], strict=True):
            axes.axhline(before, color=color, ls="--", lw=1)
            axes.plot(run["steps"], values, "-o", color=color, ms=4, label=name)
            axes.plot(1.08 * last, blend, "*", color=color, ms=10)
        axes.set(title=title, xlabel="steps of 16 crops")
        axes.grid(color="#dddddd", lw=0.6)
    panels[0].set_ylabel("average precision")
    panels[1].plot([], [], "--", color="#777777", label="mobilenet025_wider")
    panels[1].plot([], [], "*", color="#777777", ms=10, label="blend: 55 % of the run")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5)
    save(figure, "small_faces_steps.svg")


def save(figure, name):
    figure.savefig(PICTURES / name, facecolor="white", metadata={"Date": None})
    plt.close(figure)
    print(PICTURES / name)


if __name__ == "__main__":
    main()
