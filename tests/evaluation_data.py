"""Small, nasty ground truths and detections for the evaluation tests, and the way to the real ones."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.cli.main import COMMANDS
from retinaface_tf.evaluation.detection_files import ImageDetections

DATA = Path(os.environ.get("RETINAFACE_TF_DATA") or Path(__file__).resolve().parents[1] / ".." / "shared" / "data")

needs_ground_truth = pytest.mark.skipif(
    not (DATA / "wider_ground_truth" / "wider_face_val.mat").is_file(),
    reason="needs the official WIDER FACE ground truth in $RETINAFACE_TF_DATA/wider_ground_truth",
)
needs_samples = pytest.mark.skipif(
    not (DATA / "wider_val_samples").is_dir(),
    reason="needs WIDER FACE photos in $RETINAFACE_TF_DATA/wider_val_samples",
)


def ground_truth(boxes_by_name, **subsets):
    """A `Annotations` from name -> `xyxy` lists; without subsets, every face is in `all`."""
    annotations = join(annotate_photo(f"{name}.jpg", boxes) for name, boxes in boxes_by_name.items())
    kept = {key: np.array(value, bool) for key, value in subsets.items()}
    return annotations.replace(subsets=kept or {"all": np.ones(annotations.num_faces, bool)})


def found(boxes, scores, landmarks=None):
    return ImageDetections(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64), landmarks)


def detect_bright(image):
    """A detector for a test: one box around all bright pixels, landmarks in its corners and center."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    if len(rows) == 0:
        return ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    middle = [(x1 + x2) / 2, (y1 + y2) / 2]
    points = [[x1, y1], [x2, y1], middle, [x1, y2], [x2, y2]]
    return ImageDetections(np.array([[x1, y1, x2, y2]]), np.array([0.9]), np.array([points]))


def random_set(seed, *, scores="ties", num_images=12):
    """Random faces and detections: ties, empty images, missing files, zero areas, no faces, odd score ranges."""
    rng = np.random.default_rng(seed)
    boxes, detections = {}, {}
    for index in range(num_images):
        name = f"{index % 3}--event/photo_{index}"
        faces = _random_boxes(rng, rng.integers(0 if index % 4 == 0 else 1, 9))
        boxes[name] = faces
        if index % 6 == 5:
            continue  # no file
        near = faces[rng.integers(0, len(faces), rng.integers(0, 15))] if len(faces) else faces
        near = near + rng.choice([0, 0, 1, -1, 0.75], near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        both = np.concatenate([near, _random_boxes(rng, rng.integers(0, 8)) + rng.random((1, 4))])
        both = both[:0] if index % 6 == 4 else both
        detections[name] = found(both, _random_scores(rng, len(both), scores))
    num_faces = sum(map(len, boxes.values()))
    subsets = {key: rng.random(num_faces) < share for key, share in [("easy", 0.3), ("medium", 0.7), ("hard", 1.0)]}
    return ground_truth(boxes, **subsets), detections


def _random_boxes(rng, count):
    corner = rng.integers(0, 40, (count, 2))
    return np.concatenate([corner, corner + rng.integers(0, 15, (count, 2))], axis=1).astype(np.float64)


def _random_scores(rng, count, kind):
    return {
        "ties": lambda: rng.integers(0, 5, count) / 4,
        "spread": lambda: rng.random(count),
        "equal": lambda: np.full(count, 0.3),
        "outside": lambda: rng.normal(0, 50, count),
        "above one": lambda: rng.normal(900, 50, count),
        "below zero": lambda: rng.normal(-900, 50, count),
    }[kind]()


def command(name):
    """The module of `retinaface-tf evaluate NAME`, or of `retinaface-tf thresholds`."""
    return (COMMANDS[name] if name in COMMANDS else COMMANDS["evaluate"].kinds[name]).load()


def use_detector(monkeypatch, detect):
    """Every command gets a model whose `detect` is this function of an image."""
    model = SimpleNamespace(detect=lambda image, **options: detect(image))
    monkeypatch.setattr("retinaface_tf.cli.options.open_model", lambda *names, **options: model)
    monkeypatch.setattr("retinaface_tf.loading.identify", lambda *names: {"model": "made up", "runtime": "none"})
