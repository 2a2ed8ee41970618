"""Shards and validation lists of the three photo sets that `mobilenet025_masked` was trained on.

    python datasets/masked/prepare.py --data DIR --output datasets/masked/work

DIR holds `mask_photos/`, `web_faces/` and `point_faces/` as README.md beside this file describes them. Which photos
validate is decided by name alone, so it is the same for everybody:

- photos of masks and of the web: those whose number is a multiple of 5;
- frames of persons: those of a person the SHA-256 of whose name is a multiple of 5.

Run again, it goes on: what is written already is left alone.
"""

import argparse
import csv
import hashlib
import re
import sys
from pathlib import Path

from retinaface_tf.cli.main import main as retinaface_tf
from retinaface_tf.common.files import atomic_write

SETS = {
    "mask_photos": ("boxes.csv", ["--classes", "bare", "--protocol", "2x"]),
    "web_faces": ("landmarks.csv", ["--points", "left_eye", "right_eye", "--only-boxes", "--add-faces"]),
    "point_faces": ("landmarks.csv", ["--add-faces"]),
}
FIVE = [f"{name}_{axis}" for name in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"]


def validates(name):
    """Whether a photo is kept apart."""
    if found := re.fullmatch(r"(photo_|pic)(\d+)\.jpg", name):
        return int(found[2]) % 5 == 0
    person = re.fullmatch(r"(?:test|training)_(.+)_\d+\.jpg", name)[1]
    return int(hashlib.sha256(person.encode()).hexdigest(), 16) % 5 == 0


def split(source, folder, name):
    """`train.csv`: rows as they are; `validation.csv`: boxes, or five points (`nan` where not to be trusted)."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if validates(row["file"])]
    if "x1" not in rows[0]:
        eyes_only = "left_mouth_x" not in rows[0]
        kept = [
            {"file": row["file"]} | {key: "nan" if eyes_only and "eye" not in key else row[key] for key in FIVE}
            for row in kept
        ]
    for part, chosen in (("train", [row for row in rows if not validates(row["file"])]), ("validation", kept)):
        with atomic_write(folder / f"{name}_{part}.csv") as file:
            writer = csv.DictWriter(file, list(chosen[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    for name, (labels, options) in SETS.items():
        source = args.data / name / labels
        if not source.is_file():
            print(f"{source}: no such file; README.md says where the set is from", file=sys.stderr)
            return 2
        split(source, args.output, name)
        images, faces = str(args.data / name / "images"), args.output / f"{name}_faces.csv"
        if not faces.is_file():
            words = ["--annotations", str(args.output / f"{name}_train.csv"), "--output", str(faces)]
            if code := retinaface_tf(["label", "--images", images, *words, *options]):
                return code
        words = ["--annotations", str(faces), "--output", str(args.output / name)]
        if code := retinaface_tf(["convert", "custom", "--images", images, *words]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
