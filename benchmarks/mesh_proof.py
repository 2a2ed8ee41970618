"""Does the mesh branch learn from photos alone, and do boxes stay as good? Pixel loss and AP before and after training.

    python benchmarks/mesh_proof.py --topology mind-ar-1.2.5.tgz --data shards/ --output proof/ \
        --images photos/ --labels ground_truth/

The data are shards of `retinaface-tf convert`; images and labels are photos for AP, as `evaluate` takes them. The pixel
loss is measured on the data and, with `--held-out`, on shards that are not learned from. Training is `train_tf.py`'s,
from the bundled weights; `--set freeze.detector=true distill.weight=0` lets the branch alone learn. `proof/` gets
the run, `report.json` and, for the bundled photo, `astronaut.jpg`: photo and rendering side by side.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import json
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from retinaface_tf import RetinaFace
from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import validation_dataset
from retinaface_tf.dense.losses import MeshLoss
from retinaface_tf.dense.renderer import render, shading, vertex_normals
from retinaface_tf.geometry.anchor_target import AnchorTarget, LossContext
from retinaface_tf.training.build import build_model
from retinaface_tf.training.config import override, parse_overrides, read_recipe
from retinaface_tf.training.trainer import train
from retinaface_tf.training.validation import FaceAP

SAMPLE = Path(__file__).parents[1] / "retinaface_tf" / "samples" / "astronaut.jpg"
PHOTOS = 40  # so many are measured at most: they are rendered one by one
RECIPE = {
    "weights": "mobilenet025_wider",
    "freeze": {"batch_norm": True, "body_stages": 3},
    "schedule": {"kind": "cosine", "learning_rate": 1e-3, "warmup_epochs": 0.1},
    "optimizer": {"clip_norm": 50.0, "weight_decay": 0.0},
    "data": {"batch_size": 4, "image_size": 448},
    "mesh": {"weight": 0.3, "faces": 6, "crop": 32},
    "distill": {"weight": 1.0},
    "epochs": 4,
    "steps_per_epoch": 150,
    "validate_every": 1000,
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", required=True, help="as architecture.dense takes it")
    parser.add_argument("--data", required=True, type=Path, help="folder of shards")
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="folder of shards")
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main():
    args = parse()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    config = override(read_recipe("mobilenet025"), RECIPE)
    config = override(config, {"architecture": {"dense": {"form": "mesh", "topology": args.topology}}})
    config = override(config, parse_overrides(args.set))
    report = {"before": measure(build_model(config), args)}
    print(json.dumps(report), flush=True)
    start = time.process_time()
    path = train(config, [args.data], args.output / "run", strategy="none", verbose=2)
    report["training_cpu_seconds"] = round(time.process_time() - start, 1)
    model = RetinaFace.from_preset(str(path))
    report["after"] = measure(model, args)
    (args.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    picture(model, SAMPLE, args.output / "astronaut.jpg")


def measure(model, args):
    """Pixel loss and its kin on the data and on what is held out; AP."""
    report = {"data": pixel_loss(model, args.data)}
    if args.held_out:
        report["held_out"] = pixel_loss(model, args.held_out)
    ground_truth = read_annotations(args.labels, args.images)
    callback = FaceAP(find_photos(args.images, ground_truth), ground_truth, every=1, protocol="original")
    callback.set_model(model)
    return report | {name: round(float(value), 4) for name, value in callback.score().items()}


def pixel_loss(model, shards):
    """Means over anchors of the labeled faces of the first photos, whole and without augmentation."""
    loss, target, found = MeshLoss(faces=40, crop=48), AnchorTarget(), []
    _, paths = open_shards(shards)
    for images, faces in validation_dataset(paths, image_size=640, batch_size=1, max_faces=300).take(PHOTOS):
        anchors = model.anchor_generator(*images.shape[1:3])
        predictions = model(images, training=False)
        context = (images, faces, target(faces, anchors), predictions, anchors)
        parts = loss.parts(LossContext(*context, decoder=model.vertex_decoder, topology=model.topology))
        found.append(np.stack([parts[name] for name in ("pixel", "landmark", "covered")], axis=1))
    pixel, landmark, covered = np.concatenate(found).astype(float).mean(axis=0).round(3).tolist()
    return {"anchors": sum(map(len, found)), "pixel": pixel, "landmark_percent": landmark, "covered": covered}


def picture(model, source, path, margin=0.35):
    """The largest face of a photo beside itself with its rendering over it."""
    photo = np.asarray(Image.open(source).convert("RGB"))
    predictions = model(photo[None], training=False)
    anchors = model.anchor_generator(*photo.shape[:2])
    best = tf.argmax(predictions["face"][0, :, 1] - predictions["face"][0, :, 0])[None]
    face = model.vertex_decoder.faces(tf.gather(predictions["vertex"][0], best), tf.gather(anchors, best))
    (x, y), (far_x, far_y) = (f(face["projected"][0, :, :2], axis=0).numpy() for f in (tf.reduce_min, tf.reduce_max))
    side = (1 + 2 * margin) * max(far_x - x, far_y - y)
    left, top = (x + far_x - side) / 2, (y + far_y - side) / 2
    triangles, pixels = model.topology.triangles, 384
    points = (face["projected"][..., :2] - [left, top]) * (pixels / side)
    light = shading(vertex_normals(face["posed"], triangles), face["light"])
    image, covered = render(
        points, face["nearness"], 255 * face["colors"] * light[..., None], triangles, pixels, pixels
    )
    box = tuple(float(v) for v in (left, top, left + side, top + side))
    part = np.asarray(Image.fromarray(photo).resize((pixels, pixels), Image.Resampling.BICUBIC, box=box))
    over = np.where(covered[0, ..., None] > 0, np.clip(image[0], 0, 255), part).astype(np.uint8)
    Image.fromarray(np.concatenate([part, over], axis=1)).save(path, quality=90)


if __name__ == "__main__":
    main()
