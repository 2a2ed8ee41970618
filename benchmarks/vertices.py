"""How far are a model's vertices from the labels of `retinaface-tf label3d`? Of photos that it did not learn from.

    python benchmarks/vertices.py --model run/model.keras --data held_out_shards/ --before mobilenet025_wider

Photos are whole, their longer side at `--size` pixels. A face is found if a detection's box overlaps with its own by
half (intersection over union). Distances are means over a face's vertices, as parts of its size (the root of its box'
width times height); head poses are compared in degrees. `--before` measures the same network with a branch that has not
learned yet beside it: a mean face where the box is, looking at the camera.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retinaface_tf import RetinaFace
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import validation_dataset
from retinaface_tf.dense.pose import pose_from_vertices
from retinaface_tf.dense.vertex_labels import vertex_fields
from retinaface_tf.geometry.overlap import pairwise_iou
from retinaface_tf.training.build import warm_start


def compare(model, photos):
    """(distances in the image, in space, differences of pose, degrees `[N, 3]`) of found faces; how many there are."""
    flat, space, turned, labeled = [], [], [], 0
    for image, boxes, truth in tqdm(photos, leave=False):
        labeled += len(boxes)
        found = model.detect(image, score_threshold=0.5, resize=None, close_ups=False)
        if not len(found):
            continue
        overlaps = pairwise_iou(boxes, found.boxes)
        for row, best in enumerate(overlaps.argmax(axis=1)):
            if overlaps[row, best] < 0.5:
                continue
            difference = found.vertices[best] - truth[row]
            size = np.sqrt(np.prod(boxes[row, 2:] - boxes[row, :2]))
            flat.append(np.linalg.norm(difference[:, :2], axis=1).mean() / size)
            space.append(np.linalg.norm(difference, axis=1).mean() / size)
            ours, theirs = pose_from_vertices(np.stack([found.vertices[best], truth[row]]), model.topology.vertices)
            turned.append(np.abs(ours - theirs))
    return np.array(flat), np.array(space), np.array(turned), labeled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path, help="folder of shards with vertices")
    parser.add_argument("--before", metavar="PRESET")
    parser.add_argument("--size", type=int, default=320)
    args = parser.parse_args()
    model = RetinaFace.from_preset(args.model)
    models = {"after": model}
    if args.before:
        models = {"before": RetinaFace(**model.get_config()), **models}
        warm_start(models["before"], RetinaFace.from_preset(args.before))
    _, paths = open_shards(args.data)
    photos = []
    for images, faces in validation_dataset(
        paths, image_size=args.size, batch_size=1, fields=vertex_fields(model.topology.mirror)
    ):
        kept = faces["vertices_labeled"][0].numpy() > 0
        photos.append((images[0].numpy(), faces["boxes"][0].numpy()[kept], faces["vertices"][0].numpy()[kept]))
    for name, each in models.items():
        flat, space, turned, labeled = compare(each, photos)
        yaw, pitch, roll = turned.mean(axis=0)
        print(
            f"{name}: {len(flat)} of {labeled} faces found, vertices off by {flat.mean():.2%} of their size in the "
            f"image (95 of 100 by less than {np.percentile(flat, 95):.2%}), {space.mean():.2%} in space; "
            f"yaw, pitch, roll by {yaw:.1f}, {pitch:.1f}, {roll:.1f} degrees"
        )


if __name__ == "__main__":
    main()
