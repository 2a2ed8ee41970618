"""What weights are worth: the table by which `mobilenet025_wider` and its successors are chosen.

    python benchmarks/weights.py --data DIR --models mobilenet025_wider run/model.keras --output table.jsonl

DIR holds any of the folders below; parts that are missing are left out, saying so. Each model is also compared with the
first one, draw by draw, which is far sharper than two intervals beside each other.

| part | what |
|---|---|
| wider | `wider_val_squeezed`: 100 WIDER FACE validation photos, stretched from 416x416 to their true size (bicubic) |
| ten | `wider_val_samples`: ten WIDER FACE validation photos as they are |
| masks | `mask_photos` that `kept_apart`: AP at IoU 0.5 of all faces |
| web, web_more | `web_faces` and `web_faces_more` that `kept_apart`: labeled faces found, mean error of the eyes |
| points | `point_faces` that `kept_apart`: mean error of five points |
| crowd | `crowd_photos` that `kept_apart`, with `--crowd FILE` of a teacher's labels: for ranking only |

AP: official arithmetic of WIDER FACE for its photos, without its pixel (+1) for the others; at the photo's own size
and at long side 640 (`auto`: small photos enlarged to 640, others as they are). Errors are in parts of the distance
between the eyes, of the faces found at a score of 0.5. Intervals are 95 %, by bootstrap over photos (AP) or faces.
`--resize 864` makes `detect` enlarge what it is given to that long side, `--runtime litert-int8` takes the int8 files:
together they show what an int8 model finds in the time that it saves. CPU times are those of `detect` on one thread.

Kept apart, by name alone: photos whose number is a multiple of 5; frames and small pictures of people the SHA-256 of
whose name is a multiple of 5.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from retinaface_tf import load
from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.evaluation.landmarks import choose_face, evaluate_landmarks
from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with
from retinaface_tf.evaluation.runner import read_image
from retinaface_tf.evaluation.widerface import (
    average_precision,
    count,
    draw_images,
    faces_per_image,
    match,
    percentile_interval,
    precision_recall,
    subset_ap,
)

RESAMPLES = 1000
LONG_SIDE = 640


def kept_apart(name):
    """Whether a photo validates and never trains: bool, by its name alone."""
    if found := re.fullmatch(r"(?:photo_|pic|[AB]_)(\d+)\.jpg", name):
        return int(found[1]) % 5 == 0
    found = re.fullmatch(r"(?:test|training|l)_(.+)_\d+\.jpg", name) or re.fullmatch(r"(.+)\.jpg", name)
    return int(hashlib.sha256(found[1].encode()).hexdigest(), 16) % 5 == 0


def sized(detect, size):
    """`detect` of a photo at "own" size, at long side "640", or "auto": the larger of the two."""

    def run(image):
        as_is = size == "own" or (size == "auto" and max(image.shape[:2]) >= LONG_SIDE)
        return detect_with(PROTOCOLS["original" if as_is else "vga"], detect, image)

    return run


def average_precisions(detect, photos, read, ground_truth, keeps, plus_one):
    """dict subset -> (AP, float64 `[RESAMPLES]` of the draws)."""
    found, seconds = {}, 0.0
    for name, path in tqdm(photos.items(), leave=False, file=sys.stderr, disable=None):
        image = read(path)
        start = time.process_time()
        found[name] = detect(image)
        seconds += time.process_time() - start
    print(f"{1000 * seconds / max(1, len(photos)):.1f} ms of CPU time a photo", flush=True)
    matching = match(ground_truth, found, plus_one=plus_one)
    result = {}
    for subset, keep in keeps.items():
        draws = draw_images(len(ground_truth.names), RESAMPLES, seed=0)
        proposals, hits = count(matching, keep, per_image=True)
        precision, recall = precision_recall(
            draws @ proposals, draws @ hits, draws @ faces_per_image(ground_truth, keep)
        )
        result[subset] = subset_ap(matching, keep), average_precision(recall, precision)
    return result


def measure_wider(model, data, folder, size, squeezed):
    ground_truth = read_wider_ground_truth(data / "wider_ground_truth")
    photos = find_photos(data / folder / "images" if squeezed else data / folder, ground_truth)
    ground_truth = ground_truth.only(photos)
    true_sizes = read_sizes(data / "wider_ground_truth/val_sizes_and_boxes.txt") if squeezed else {}

    def read(path):
        image = read_image(path)
        if not squeezed:
            return image
        return np.asarray(Image.fromarray(image).resize(true_sizes[path.stem], Image.Resampling.BICUBIC))

    keeps = ground_truth.subsets
    return average_precisions(sized(model, size), photos, read, ground_truth, keeps, True)


def read_sizes(path):
    """dict photo -> (width, height), from the lines `# event/photo.jpg width height`."""
    words = [line.split() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    return {Path(name).stem: (int(width), int(height)) for _, name, width, height in words}


def measure_boxes(model, labels, images, size, subset):
    """AP of labels in any format; ignore regions are neither to be found nor wrong to find."""
    ground_truth = read_annotations(labels, images)
    kept = [name for name, file in zip(ground_truth.names, ground_truth.files, strict=True) if kept_apart(file)]
    ground_truth = ground_truth.only(kept)
    photos = dict(zip(ground_truth.names, (images / file for file in ground_truth.files), strict=True))
    keeps = {subset: ground_truth.subset("all")}
    return average_precisions(sized(model, size), photos, read_image, ground_truth, keeps, False)


def measure_points(model, folder, eyes_only, size):
    """(found, faces, mean error, low, high)."""
    detect = sized(partial(model, score_threshold=0.5), size)
    annotations = read_annotations(folder / "landmarks.csv")
    truth, predicted, seen = [], [], {}
    points_of = annotations.landmarks_or_nan()
    if eyes_only:
        points_of[:, 2:] = np.nan
    files = [annotations.files[photo] for photo in annotations.image]
    for file, points in zip(tqdm(files, leave=False, file=sys.stderr, disable=None), points_of, strict=True):
        if kept_apart(file):
            if file not in seen:
                seen = {file: detect(read_image(folder / "images" / file))}
            truth.append(points)
            predicted.append(choose_face(seen[file], points))
    result = evaluate_landmarks(np.array(truth), np.array(predicted), resamples=RESAMPLES)
    low, high = result["inter-ocular"]["interval_95"]
    return result["found"], result["faces"], result["inter-ocular"]["nme"], low, high


PARTS = {
    "wider": ("wider_val_squeezed", lambda m, d, s, _: measure_wider(m, d, "wider_val_squeezed", s, True)),
    "ten": ("wider_val_samples", lambda m, d, s, _: measure_wider(m, d, "wider_val_samples", s, False)),
    "masks": (
        "mask_photos",
        lambda m, d, s, _: measure_boxes(m, d / "mask_photos/boxes.csv", d / "mask_photos/images", s, "masks"),
    ),
    "web": ("web_faces", lambda m, d, s, _: measure_points(m, d / "web_faces", True, s)),
    "web_more": ("web_faces_more", lambda m, d, s, _: measure_points(m, d / "web_faces_more", True, s)),
    "points": ("point_faces", lambda m, d, s, _: measure_points(m, d / "point_faces", False, s)),
    "crowd": (
        "crowd_photos",
        lambda m, d, s, crowd: measure_boxes(m, crowd, d / "crowd_photos/images", s, "crowd"),
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME", help="presets or .keras files")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sizes", nargs="+", default=["own", "640"], choices=["own", "640", "auto"])
    parser.add_argument(
        "--resize", type=int, metavar="LONG", help="long side to which `detect` brings what it is given"
    )
    parser.add_argument("--runtime", help="as `retinaface_tf.load` has it")
    parser.add_argument("--no-close-ups", action="store_true", help="a single pass, as in published evaluations")
    parser.add_argument("--crowd", type=Path, metavar="FILE", help="teacher's labels of the crowd photos")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line a model")
    args = parser.parse_args()
    resize, first = args.resize and (args.resize, args.resize), {}
    for name in args.models:
        detector, result = load(name, threads=1, runtime=args.runtime), {}
        model = partial(detector.detect, score_threshold=0.02, resize=resize, close_ups=not args.no_close_ups)
        for part in args.parts:
            folder, measure = PARTS[part]
            missing = "--crowd FILE" if part == "crowd" and args.crowd is None else args.data / folder
            if missing == "--crowd FILE" or not missing.is_dir():
                print(f"{part}: left out, no {missing}", file=sys.stderr)
                continue
            for size in args.sizes:
                if size == "640" and part in ("web", "points"):
                    continue  # large faces: nothing to learn from it
                found = measure(model, args.data, size, args.crowd)
                key = f"{part} {size}"
                rows = compared(found, key, first) if isinstance(found, dict) else {key: found}
                for row, values in rows.items():
                    print(f"{name} | {row} | {in_words(values)}", flush=True)
                result |= rows
        if args.output:
            with args.output.open("a") as file:
                file.write(json.dumps({"model": name, **result}) + "\n")


def compared(found, key, first):
    """dict -> [AP, low, high, gain over the first model, low, high]; `first` remembers that model's draws."""
    rows = {}
    for subset, (value, draws) in found.items():
        base, base_draws = first.setdefault(f"{key} {subset}", (value, draws))
        gain = percentile_interval(draws - base_draws)
        rows[f"{key} {subset}"] = [value, *percentile_interval(draws), value - base, *gain]
    return rows


def in_words(values):
    if len(values) == 5:
        return "{} of {} found, error {:.4f} ({:.4f} to {:.4f})".format(*values)
    return "{:.3f} ({:.3f} to {:.3f}); against the first {:+.3f} ({:+.3f} to {:+.3f})".format(*values)


if __name__ == "__main__":
    main()
