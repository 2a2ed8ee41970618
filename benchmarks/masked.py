"""What models find on the validation parts of the masked-face recipe, and on WIDER FACE samples, in one table.

    python benchmarks/masked.py --data DIR --prepared datasets/masked/work --models mobilenet025_wider run/model.keras

DIR holds the three photo sets of `datasets/masked/README.md`, and `wider_val_samples/` and `wider_ground_truth/`.
Masks: AP at IoU 0.5 over all faces, photos at their own size and enlarged twice. WIDER: official AP of Easy, Medium,
Hard, and all faces, original size. Web: faces found and mean eye error. Points: NME of five landmarks. Errors are in
parts of the distance between the eyes. Intervals: 95 %, bootstrap over photos (1,000 draws). `--output` appends JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.evaluation.landmarks import choose_face, evaluate_landmarks
from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with
from retinaface_tf.evaluation.runner import read_image
from retinaface_tf.evaluation.widerface import bootstrap_ap, match, subset_ap


def ap_of(model, photos, ground_truth, protocol, keeps, plus_one):
    """dict subset -> [AP, low, high]."""
    detect = lambda view: model.detect(view, score_threshold=0.02, resize=None, close_ups=False)  # noqa: E731
    ground_truth = ground_truth.only(photos)
    found = {
        name: detect_with(PROTOCOLS[protocol], detect, read_image(path))
        for name, path in tqdm(photos.items(), desc=protocol, leave=False)
    }
    matching = match(ground_truth, found, plus_one=plus_one)
    keeps = {**({} if keeps is None else ground_truth.subsets), "all": np.ones(len(ground_truth.boxes), bool)}
    return {
        name: [subset_ap(matching, keep), *bootstrap_ap(ground_truth, matching, keep, resamples=1000)]
        for name, keep in keeps.items()
    }


def landmarks_of(model, csv_file, images):
    """Result of `evaluate_landmarks`, with the model's usual threshold."""
    annotations = read_annotations(csv_file)
    landmarks = annotations.landmarks_or_nan()
    files = [annotations.files[photo] for photo in annotations.image]
    detect = lambda view: model.detect(view, score_threshold=0.5, resize=None, close_ups=False)  # noqa: E731
    found, predicted = {}, []
    for file, points in zip(tqdm(files, desc=csv_file.stem, leave=False), landmarks, strict=True):
        if file not in found:
            found[file] = detect(read_image(images / file))
        predicted.append(choose_face(found[file], points))
    return evaluate_landmarks(landmarks, np.array(predicted), resamples=1000)


def measure(model, data, prepared):
    masks = read_annotations(prepared / "mask_photos_validation.csv")
    photos = find_photos(data / "mask_photos/images", masks)
    wider = read_wider_ground_truth(data / "wider_ground_truth")
    web = landmarks_of(model, prepared / "web_faces_validation.csv", data / "web_faces/images")
    points = landmarks_of(model, prepared / "point_faces_validation.csv", data / "point_faces/images")
    return {
        "masks": ap_of(model, photos, masks, "original", None, False)["all"],
        "masks 2x": ap_of(model, photos, masks, "2x", None, False)["all"],
        "wider": ap_of(model, find_photos(data / "wider_val_samples", wider), wider, "original", True, True),
        "web": [web["found"], web["faces"], web["inter-ocular"]["nme"], *web["inter-ocular"]["interval_95"]],
        "points": [
            points["found"],
            points["faces"],
            points["inter-ocular"]["nme"],
            *points["inter-ocular"]["interval_95"],
        ],
    }


def row(name, result):
    ap = lambda values: f"{values[0]:.3f} ({values[1]:.3f}-{values[2]:.3f})"  # noqa: E731
    wider = " / ".join(f"{result['wider'][part][0]:.3f}" for part in ("easy", "medium", "hard", "all"))
    found = lambda values: f"{values[0]}/{values[1]} {values[2]:.4f} ({values[3]:.4f}-{values[4]:.4f})"  # noqa: E731
    cells = [ap(result["masks"]), ap(result["masks 2x"]), wider, found(result["web"]), found(result["points"])]
    return " | ".join([name, *cells])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prepared", type=Path, required=True, metavar="DIR")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME", help="presets or .keras files")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line a model")
    args = parser.parse_args()
    from retinaface_tf import RetinaFace

    print("model | masks AP | masks 2x AP | WIDER E / M / H / all | web found, eye error | points found, NME")
    for name in args.models:
        result = measure(RetinaFace.from_preset(name), args.data, args.prepared)
        print(row(name, result), flush=True)
        if args.output:
            with args.output.open("a") as file:
                file.write(json.dumps({"model": name, **result}) + "\n")


if __name__ == "__main__":
    main()
