"""Does the trainer learn? Overfit a few photos from an ImageNet body, or fine-tune finished weights on them.

    python benchmarks/overfit.py --photos DIR --ground-truth DIR --weights imagenet.keras --output run
    python benchmarks/overfit.py --photos DIR --ground-truth DIR --weights mobilenet025_wider --output run --fine-tune

The photos are some of WIDER FACE's validation set with its official answers. These have no landmarks: they are taken
from what the bundled model finds (self-labeling), where it finds the face. Prints recall and precision of faces over
24 pixels and AP, before and after, and draws `faces.jpg`: found, missed and false.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SMALLEST = 24  # pixels, the smaller side
WANTED_PRECISION = 0.95
OVERFIT = {
    "epochs": 60,
    "steps_per_epoch": 10,
    "validate_every": 60,
    "data": {"batch_size": 8, "augment": {"crop_sides": [0.5, 0.7, 0.9, 1.1, 1.4]}},
    "schedule": {"kind": "cosine", "learning_rate": 0.01, "warmup_epochs": 3},
    "optimizer": {"clip_norm": 10},
}
FINE_TUNE = {
    "epochs": 10,
    "steps_per_epoch": 10,
    "validate_every": 10,
    "data": {"batch_size": 8, "augment": {"crop_sides": [0.5, 0.7, 0.9, 1.1, 1.4]}},
    "schedule": {"kind": "cosine", "learning_rate": 0.0003, "warmup_epochs": 1},
    "freeze": {"calibrate": 10},
    "optimizer": {"clip_norm": 10},
}


def make_shards(photos, ground_truth, folder):
    """WIDER FACE answers and self-labeled landmarks as shards; returns their folder."""
    from retinaface_tf import RetinaFace
    from retinaface_tf.annotations.annotations import annotate_photo, join
    from retinaface_tf.common.types import NOT_LABELED, VISIBLE
    from retinaface_tf.data.shards import ConvertOptions, write_shards
    from retinaface_tf.geometry.overlap import pairwise_iou

    model = RetinaFace.from_preset("mobilenet025_wider")
    records, labeled = [], 0
    for name, path in photos.items():
        boxes = ground_truth.boxes_of(name)
        found = model.detect(path, resize=None, close_ups=False)
        points, visible = np.zeros((len(boxes), 5, 2)), np.full((len(boxes), 5), NOT_LABELED)
        overlap = pairwise_iou(boxes, found.boxes) if len(found) else np.zeros((len(boxes), 1))
        sure = overlap.max(axis=1) > 0.5
        points[sure], visible[sure] = found.landmarks[overlap.argmax(axis=1)[sure]] if sure.any() else 0, VISIBLE
        labeled += int(sure.sum())
        records.append(annotate_photo(path.name, boxes, points, visible))
    source = {"kind": "WIDER FACE boxes, landmarks by mobilenet025_wider", "annotations": "", "images": ""}
    options = ConvertOptions(shards=1)
    write_shards(join(records), next(iter(photos.values())).parent, folder, options, source=source, overwrite=True)
    print(f"{sum(len(record) for record in records)} faces, {labeled} of them with landmarks")
    return folder


def measure(model, photos, ground_truth):
    """Detections, and recall at the lowest threshold whose precision is still `WANTED_PRECISION`: a dict."""
    from retinaface_tf.evaluation.widerface import THRESHOLDS, average_precision, curve, match

    options = {"score_threshold": 0.02, "resize": None, "close_ups": False}
    found = {name: model.detect(path, **options) for name, path in photos.items()}
    large = (ground_truth.boxes[:, 2:] - ground_truth.boxes[:, :2]).min(axis=1) > SMALLEST
    matching = match(ground_truth, found)
    precision, recall = curve(matching, large)
    good = np.flatnonzero(precision >= WANTED_PRECISION)
    best = good[np.argmax(recall[good])] if len(good) else 0
    low, high = matching.scores.min(), matching.scores.max()
    everything, all_recall = curve(matching, np.ones(len(large), bool))
    return found, {
        "faces": int(large.sum()),
        "recall": float(recall[best]),
        "precision": float(precision[best]),
        "threshold": float(low + THRESHOLDS[best] * (high - low)),
        "ap": float(average_precision(recall, precision)),
        "ap_all_faces": float(average_precision(all_recall, everything)),
    }


def picture(photos, ground_truth, found, threshold, path):
    """All photos with found faces green, missed ones red, detections on no face yellow."""
    from retinaface_tf.geometry.overlap import pairwise_iou

    tiles = []
    for name, photo in photos.items():
        image = Image.open(photo).convert("RGB")
        pen = ImageDraw.Draw(image)
        keep = found[name].scores >= threshold
        boxes, truth = found[name].boxes[keep], ground_truth.boxes_of(name)
        overlap = pairwise_iou(boxes, truth) if len(boxes) else np.zeros((0, len(truth)))
        large = (truth[:, 2:] - truth[:, :2]).min(axis=1) > SMALLEST
        for box in truth[large & ~(overlap.max(axis=0, initial=0) >= 0.5)]:
            pen.rectangle(box.tolist(), outline=(255, 40, 40), width=3)
        for box, best, points in zip(boxes, overlap.max(axis=1, initial=0), found[name].landmarks[keep], strict=True):
            pen.rectangle(box.tolist(), outline=(0, 230, 118) if best >= 0.5 else (255, 220, 0), width=2)
            pen.point([tuple(point) for point in points.tolist()], fill=(255, 64, 64))
        image.thumbnail((640, 480))
        tiles.append(image)
    sheet = Image.new("RGB", (5 * 640, -(-len(tiles) // 5) * 480))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % 5 * 640, number // 5 * 480))
    sheet.save(path, quality=85)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fine-tune", action="store_true")
    parser.add_argument("--set", nargs="+", default=[])
    args = parser.parse_args()

    from retinaface_tf import RetinaFace
    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.annotations.widerface import read_wider_ground_truth
    from retinaface_tf.training.config import TrainConfig, override, parse_overrides
    from retinaface_tf.training.trainer import train

    ground_truth = read_wider_ground_truth(args.ground_truth)
    photos = find_photos(args.photos, ground_truth)
    ground_truth = ground_truth.only(photos)
    shards = make_shards(photos, ground_truth, args.output / "shards")
    config = override(
        TrainConfig(preset="mobilenet025", weights=args.weights), FINE_TUNE if args.fine_tune else OVERFIT
    )
    config = override(config, parse_overrides(args.set))
    if args.fine_tune:
        _, before = measure(RetinaFace.from_preset(args.weights), photos, ground_truth)
        print("before:", json.dumps(before))
    path = train(config, [shards], args.output / "run", verbose=2)
    found, after = measure(RetinaFace.from_preset(str(path)), photos, ground_truth)
    print("after: ", json.dumps(after))
    picture(photos, ground_truth, found, after["threshold"], args.output / "faces.jpg")


if __name__ == "__main__":
    main()
