"""Labels by a teacher, shards and validation lists for training on small faces.

    python datasets/small_faces/prepare.py --data DIR --output datasets/small_faces/work

DIR holds the photo sets that README.md beside this file describes; those that are missing are left out, saying so. What
`benchmarks/weights.py` keeps apart never gets into a shard. Run again, it goes on where it stopped.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from weights import kept_apart

from retinaface_tf.cli.main import main as retinaface_tf
from retinaface_tf.common.files import atomic_write

# Set -> labels of people, and how the teacher looks at its photos.
SETS = {
    "crowd_photos": ("heads.csv", ["--scales", "1,1.5,2", "--flip"]),
    "mask_photos": ("boxes.csv", ["--scales", "1,2", "--classes", "bare"]),
    "web_faces": ("landmarks.csv", ["--scales", "0.5,1", "--points", "left_eye", "right_eye"]),
    "web_faces_more": ("landmarks.csv", ["--scales", "1,2", "--points", "left_eye", "right_eye"]),
    "point_faces": ("landmarks.csv", ["--scales", "0.5,1"]),
    "small_faces": ("landmarks.csv", ["--scales", "2", "--flip"]),
}


SMALL, GRID = 80, 8  # pixels of a small picture, and how many stand in a row of a collage


def split(source, target, only=None):
    """Write the rows of photos that train, a CSV like the source; returns their number.

    `only` keeps the photos that the teacher has seen.
    """
    with source.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not kept_apart(row["file"])]
    rows = [row for row in rows if only is None or row["file"] in only]
    if not rows:
        return 0
    with atomic_write(target) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def collages(faces, images, output):
    """Small pictures, `GRID` by `GRID` on one photo; returns the CSV of their faces."""
    output.mkdir(parents=True, exist_ok=True)
    with faces.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["file"] for row in rows})
    names = [names[index] for index in np.random.default_rng(0).permutation(len(names))]
    names = names[: len(names) // GRID**2 * GRID**2]
    place = {name: divmod(index, GRID**2) for index, name in enumerate(names)}
    for number in range(len(names) // GRID**2):
        canvas = Image.new("RGB", (GRID * SMALL, GRID * SMALL))
        for cell, name in enumerate(names[number * GRID**2 : (number + 1) * GRID**2]):
            with Image.open(images / name) as picture:
                canvas.paste(picture.convert("RGB"), (cell % GRID * SMALL, cell // GRID * SMALL))
        canvas.save(output / f"collage_{number:03d}.jpg", quality=95)
    target = faces.with_name("collages.csv")
    with atomic_write(target) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            if row["file"] not in place:
                continue
            number, cell = place[row["file"]]
            corner = {"x": cell % GRID * SMALL, "y": cell // GRID * SMALL}
            moved = {"file": f"collage_{number:03d}.jpg"}
            for key, value in row.items():
                axis = key[0] if key in ("x1", "y1", "x2", "y2") else key[-1] if key[-2:] in ("_x", "_y") else None
                if key != "file":
                    inside = min(max(float(value), 0), SMALL) if axis and value and key[0] in "xy" else value
                    moved[key] = f"{float(inside) + corner[axis]:.2f}" if axis and value else value
            if moved["x1"]:
                writer.writerow(moved)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seen-only", action="store_true", help="take photos that a teacher has seen already, no more")
    args = parser.parse_args()
    for name in args.sets:
        labels, options = SETS[name]
        source, looks = args.data / name / labels, args.output / f"{name}_looks.jsonl"
        seen = None
        if args.seen_only:
            from retinaface_tf.evaluation.teacher import read_looks

            seen = read_looks(looks) if looks.is_file() else {}
        if not source.is_file() or seen == {}:
            print(f"{name}: left out, no {source if not source.is_file() else looks}", file=sys.stderr)
            continue
        train, faces = args.output / f"{name}_train.csv", args.output / f"{name}_faces.csv"
        if not split(source, train, seen):
            print(f"{name}: left out, no photo of it trains", file=sys.stderr)
            continue
        images = str(args.data / name / "images")
        given = ["--points", str(train)] if labels == "heads.csv" else ["--annotations", str(train)]
        words = [*given, "--output", str(faces), "--detections", str(looks), "--quiet"]
        if code := retinaface_tf(["label", "--images", images, *words, *options]):
            return code
        if name == "small_faces":
            images = str(args.output / "collages")
            faces = collages(faces, args.data / name / "images", Path(images))
            if not any(Path(images).iterdir()):
                print(f"{name}: left out, fewer than {GRID**2} pictures with a face", file=sys.stderr)
                continue
        words = ["--annotations", str(faces), "--output", str(args.output / name), "--overwrite"]
        if code := retinaface_tf(["convert", "custom", "--images", images, *words]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
