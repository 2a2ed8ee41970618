"""Train the bundled network on the labels of `prepare.py`, against soft targets.

    P="python datasets/small_faces/train.py --data DIR --prepared datasets/small_faces/work"
    $P --output runs/small
    $P --output runs/small --blend 0.55
    $P --output runs/points --landmarks runs/small/blended.keras --steps 1500
    $P --output runs/points --landmarks runs/small/blended.keras --blend 1

`train_tf.py` with the same labels loses accuracy on WIDER FACE (docs/notes/small_faces.md). Three things differ here:

- **Targets are scores.** A face's target is the score of its label, less where the predicted box is off. Everywhere
  else the target is the score of the starting weights for the same crop, so that nothing else is learned by the way.
- **Weights move in parts of their channel's size.** The bundled weights have their batch normalization folded in, which
  makes the channels of a convolution very different. Adam moves all by the same amount, and harms the small ones.
- **Crops for all sizes**: aimed at faces of 6 to 300 pixels, also much enlarged parts of photos, where hands, ears and
  clothes become as large as faces.

`--blend` writes `blended.keras`: the start plus a part of what the run changed, averaged over its last steps.
`--landmarks` trains nothing but landmarks, which changes no box and no score. If a run is stopped, the same command
continues it from the last checkpoint, which is written every 200 steps. One thread trains, and one process makes crops.
"""

import argparse
import io
import multiprocessing
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from tqdm import tqdm

from retinaface_tf.annotations.read import read_annotations
from retinaface_tf.common.files import atomic_write
from retinaface_tf.evaluation.teacher import read_looks
from retinaface_tf.geometry.overlap import pairwise_iou

START = "mobilenet025_wider"
SIDE, BATCH, LONGEST = 320, 16, 1400  # pixels of a crop, crops of a step, pixels of a photo
SHARES = {  # of the crops
    "crowd_photos": 0.30,
    "web_faces_more": 0.20,
    "web_faces": 0.15,
    "mask_photos": 0.15,
    "small_faces": 0.12,
    "point_faces": 0.08,
}
AIMED, ENLARGED, LARGEST_SCALE = 0.6, 0.23, 5.0  # parts of the crops at a face, and far enlarged; their largest scale
FACES = (6.0, 300.0)  # pixels that a face is brought to, log-uniform
SMALLEST = 5.5  # pixels; smaller faces are left to the starting weights
MOSAIC, BLUR, JPEG, COLOR = 0.35, 0.4, 0.3, 0.6  # probabilities
POSITIVE, FORCED, BAND = 0.35, 0.15, 0.2  # IoU: a face; of a face's best anchor; neither
CONFIRMED = 0.3  # score of a face that a point on the head confirms; others become ignore regions
BACKGROUND = 0.5  # part of its score that the starting weights keep where there is no face
HOLD = 2.0  # weight of everything that is no face
RATE, WARM_UP, FLOOR, AVERAGE = 1.2e-3, 200, 0.03, 0.999
PLAIN_RATE = 1e-4
BOX, OFFSETS, LANDMARKS = 1.5, 0.25, 0.4  # weights of the losses
MEAN = (123, 117, 104)
CHANGES = {  # of the recipe, to measure what each part of it is worth
    "smooth-l1": "box loss: smooth L1 of the offsets alone",
    "diou": "box loss: DIoU alone",
    "mined": "face loss: cross-entropy of faces and the 7 hardest negatives a face, without soft targets",
    "focal": "face loss: focal, without soft targets",
    "quality-focal": "face loss: quality focal, whose targets are the IoU of the box, and 0 without a face",
    "soft-focal": "face loss: quality focal, with the soft targets",
    "labels-alone": "soft targets for faces, 0 elsewhere, and nothing for what the labels ignore",
    "atss": "matching by ATSS",
    "random-crops": "no crops aimed at a size of face, none much enlarged",
    "no-mosaic": "no mosaic",
    "no-average": "the last weights, not the average of the last steps",
    "constant": "a constant learning rate after the warm-up",
    "plain-adam": "Adam at 1e-4 on the weights themselves",
}
HEADS = {"face": slice(0, 2), "box": slice(2, 6), "landmark": slice(6, 16)}  # of the values of an anchor
MIRRORED = [1, 0, 2, 4, 3]


def read_photos(data, prepared):
    """dict set -> list of photos: pixels, boxes, landmarks, scores, ignore regions."""
    sets = {}
    for name in SHARES:
        collages = name == "small_faces"
        labels = prepared / ("collages.csv" if collages else f"{name}_faces.csv")
        folder = prepared / "collages" if collages else data / name / "images"
        if not labels.is_file():
            print(f"{name}: left out, no {labels}", file=sys.stderr)
            continue
        looks = read_looks(prepared / f"{name}_looks.jsonl") if name == "crowd_photos" else {}
        sets[name] = [
            read_photo(folder, photo, looks.get(photo.files[0])) for photo in read_annotations(labels, folder)
        ]
        print(f"{name}: {len(sets[name])} photos, {sum(len(photo.boxes) for photo in sets[name])} faces")
    if not sets:
        raise SystemExit(f"{prepared}: no labels. Run datasets/small_faces/prepare.py first")
    return sets


def read_photo(folder, photo, look=None):
    with Image.open(folder / photo.files[0]) as file:
        image = file.convert("RGB")
    scale = min(1.0, LONGEST / max(image.size))
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    ignore, scores = photo.ignore.copy(), photo.scores.copy()
    if look is not None and len(look.boxes):  # a confirmed face has the score 1 in the labels: take the teacher's
        scores = look.scores[np.abs(photo.boxes[:, None] - look.boxes[None]).sum(axis=2).argmin(axis=1)]
        ignore |= scores < CONFIRMED
    landmarks = np.where(photo.visible[..., None] >= 0, photo.landmarks, np.nan)
    return SimpleNamespace(
        image=np.asarray(image),
        boxes=(photo.boxes[~ignore] * scale).astype(np.float32),
        landmarks=(landmarks[~ignore] * scale).astype(np.float32),
        scores=np.sqrt(scores[~ignore]).astype(np.float32),
        regions=(photo.boxes[ignore] * scale).astype(np.float32),
    )


def crop(rng, photo, side, aim=True, faces=FACES):
    """A square part of a photo at a drawn scale: a photo of `side` pixels. `faces` are (smallest, largest) pixels."""
    height, width = photo.image.shape[:2]
    kind, face = rng.random(), None
    if aim and len(photo.boxes) and kind < AIMED:
        face = photo.boxes[rng.integers(len(photo.boxes))]
        scale = min(2.2, np.exp(rng.uniform(*np.log(faces))) / np.sqrt(max(1e-6, np.prod(face[2:] - face[:2]))))
    else:
        scale = np.exp(rng.uniform(*np.log((1, LARGEST_SCALE) if aim and kind > 1 - ENLARGED else (0.3, 1.5))))
    scale = float(max(scale, 0.12))
    window = side / scale
    corner = np.array(
        [
            place(rng, length, window, None if face is None else face[axis::2])
            for axis, length in enumerate((width, height))
        ]
    )
    low, high = np.maximum(corner, 0), np.minimum(corner + window, (width, height))
    start = np.maximum(np.round((low - corner) * scale).astype(int), 0)
    size = np.minimum(np.maximum(np.round((high - low) * scale).astype(int), 1), side - start)
    first = low.astype(int)
    part = Image.fromarray(photo.image[first[1] : int(np.ceil(high[1])), first[0] : int(np.ceil(high[0]))])
    part = part.resize(
        tuple(size),
        Image.Resampling.BICUBIC if scale > 1 and rng.random() < 0.5 else Image.Resampling.BILINEAR,
        box=(*(low - first), *np.minimum(high - first, part.size)),
        reducing_gap=3,
    )
    if rng.random() < BLUR:
        smaller = np.maximum(2, np.round(size / np.exp(rng.uniform(0, np.log(2.4), 2)))).astype(int)
        part = part.resize(tuple(smaller), Image.Resampling.BILINEAR).resize(tuple(size), Image.Resampling.BICUBIC)
    canvas = np.full((side, side, 3), MEAN, np.uint8)
    canvas[start[1] : start[1] + size[1], start[0] : start[0] + size[0]] = part

    limits = np.concatenate([start, start]), np.concatenate([start + size, start + size])
    move = np.concatenate([corner, corner])
    whole = (photo.boxes - move) * scale
    boxes, regions = (np.clip((each - move) * scale, *limits) for each in (photo.boxes, photo.regions))
    areas, seen = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (whole, boxes))
    keep = (seen >= 0.6 * areas) & (areas >= SMALLEST**2)
    regions = np.concatenate([regions[(regions[:, 2:] > regions[:, :2]).all(axis=1)], boxes[~keep & (seen > 0)]])
    result = SimpleNamespace(
        image=canvas,
        boxes=boxes[keep],
        landmarks=(photo.landmarks[keep] - corner) * scale,
        scores=photo.scores[keep],
        regions=regions,
    )
    return mirror(result, side) if rng.random() < 0.5 else result


def place(rng, length, window, face):
    """Where the window begins along one side of the photo, so that the face, low and high, is inside."""
    if window >= length:
        return -(window - length) * rng.random()
    if face is None:
        return (length - window) * rng.random()
    low, high = max(0, face[1] - window), min(length - window, face[0])
    return low + (high - low) * rng.random() if high > low else np.clip((sum(face) - window) / 2, 0, length - window)


def mirror(photo, side):
    for boxes in (photo.boxes, photo.regions):
        boxes[:, [0, 2]] = side - boxes[:, [2, 0]]
    photo.landmarks = photo.landmarks[:, MIRRORED]
    photo.landmarks[..., 0] = side - photo.landmarks[..., 0]
    photo.image = photo.image[:, ::-1]
    return photo


def example(rng, sets, change=None):
    """One crop, or a mosaic of four."""
    names = list(sets)
    shares = np.array([SHARES[name] for name in names])

    def draw(side, name=None):
        name = name or names[rng.choice(len(names), p=shares / shares.sum())]
        return name, crop(rng, sets[name][rng.integers(len(sets[name]))], side, aim=change != "random-crops")

    name = names[rng.choice(len(names), p=shares / shares.sum())]
    if name != "crowd_photos" and rng.random() < (0 if change == "no-mosaic" else MOSAIC):
        half = SIDE // 2
        parts = [draw(half, name if index == 0 else None)[1] for index in range(4)]
        photo = SimpleNamespace(image=np.empty((SIDE, SIDE, 3), np.uint8))
        for part, (x, y) in zip(parts, ((0, 0), (half, 0), (0, half), (half, half)), strict=True):
            photo.image[y : y + half, x : x + half] = part.image
            corner = np.array([x, y, x, y])
            part.boxes, part.regions = part.boxes + corner, part.regions + corner
            part.landmarks = part.landmarks + corner[:2]
        for key in ("boxes", "landmarks", "scores", "regions"):
            setattr(photo, key, np.concatenate([getattr(part, key) for part in parts]))
    else:
        photo = draw(SIDE, name)[1]
    photo.image = recolored(rng, photo.image)
    return photo


def recolored(rng, image):
    """An image with other colors and JPEG artifacts, or without: uint8 `[H, W, 3]`."""
    pixels = image.astype(np.float32)
    if rng.random() < COLOR:
        pixels = (pixels - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-28, 28)
        gray = pixels.mean(axis=-1, keepdims=True)
        pixels = gray + (pixels - gray) * (0 if rng.random() < 0.1 else rng.uniform(0.6, 1.4))
    image = pixels.clip(0, 255).astype(np.uint8)
    if rng.random() < JPEG:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(30, 92)))
        image = np.asarray(Image.open(file))
    return image


def targets(photo, anchors, change=None):
    """Per anchor: 1 face, 0 background, -1 left to the starting weights; score; box; landmarks and their weights."""
    count, sizes = len(anchors), anchors[:, 2:] - anchors[:, :2]
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    label, score, box = np.zeros(count, np.float32), np.zeros(count, np.float32), np.zeros((count, 4), np.float32)
    landmarks, known = np.zeros((count, 5, 2), np.float32), np.zeros((count, 5), np.float32)
    if len(photo.regions):
        half = np.maximum((photo.regions[:, 2:] - photo.regions[:, :2]) / 2, 8)
        middle = (photo.regions[:, :2] + photo.regions[:, 2:]) / 2
        low, high = middle - half, middle + half
        for begin in range(0, len(low), 400):
            part = slice(begin, begin + 400)
            inside = np.minimum(anchors[:, None, 2:], high[part]) - np.maximum(anchors[:, None, :2], low[part])
            label[inside.clip(0).prod(axis=-1).max(axis=1) >= 0.3 * sizes.prod(axis=1)] = -1
    if len(photo.boxes):
        iou = pairwise_iou(anchors, photo.boxes)
        best, face = iou.max(axis=1), iou.argmax(axis=1)
        forced = iou.max(axis=0) >= FORCED
        anchor = iou.argmax(axis=0)
        label[anchor[~forced]] = -1
        positive = best >= POSITIVE
        positive[anchor[forced]], face[anchor[forced]] = True, np.flatnonzero(forced)
        if change == "atss":
            positive, face = match_by_center(anchors, photo.boxes, anchor, forced)
        else:
            label[(best >= BAND) & ~positive] = -1
        label[positive], score[positive] = 1, photo.scores[face[positive]]
        boxes, size, center = photo.boxes[face[positive]], sizes[positive], centers[positive]
        offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - center
        box[positive] = np.concatenate(
            [offset / (0.1 * size), np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1) / size) / 0.2], axis=1
        )
        points = photo.landmarks[face[positive]]
        known[positive] = np.isfinite(points).all(axis=-1)
        landmarks[positive] = (
            np.nan_to_num((points - center[:, None]) / (0.1 * size[:, None])) * known[positive][..., None]
        )
    return label, score, box, landmarks, known


def match_by_center(anchors, boxes, anchor, forced):
    """By ATSS, and each face's best anchor if forced: bool `[A]`, whether an anchor has a face; int `[A]`, which."""
    from retinaface_tf.geometry.matcher import match_by_atss  # TensorFlow, here and not before the fork

    levels = [2 * (SIDE // stride) ** 2 for stride in (8, 16, 32)]
    face = match_by_atss(anchors, boxes[None], levels).numpy()[0]
    face[anchor[forced]] = np.flatnonzero(forced)
    return face >= 0, face


def produce(queue, orders, sets, seed, change=None):
    """Batches for ever; the batch of a step is the same in every run."""
    anchors, step = orders.get()
    while True:
        rng, rows = np.random.default_rng([seed, step]), []
        for _ in range(BATCH):
            photo = example(rng, sets, change)
            rows.append((photo.image, *targets(photo, anchors, change)))
        queue.put([np.stack(column) for column in zip(*rows, strict=True)])
        step += 1


def channel_sizes(weights, path):
    """What a weight moves in parts of: the RMS of its channel, or of all biases of the layer."""
    if weights.ndim == 1:
        return np.full(weights.shape, max(np.sqrt((weights**2).mean()), 1e-3), np.float32)
    axes = (0, 1) if "depthwise" in path or weights.shape[-1] == 1 else (0, 1, 2)
    sizes = np.sqrt((weights**2).mean(axis=axes, keepdims=True))
    return np.maximum(sizes, 0.2 * sizes.mean()).astype(np.float32)


class RelativeAdam:
    """Adam on `weights`, in parts of the size of their channels (`sizes_of`); their average, and checkpoints."""

    def __init__(self, weights, rate, steps, sizes_of=channel_sizes):
        import keras

        self.weights, self.rate, self.steps, self.step, self.sizes_of = weights, rate, steps, 0, sizes_of
        self.first = [weight.numpy() for weight in weights]
        self.sizes = [sizes_of(first, weight.path) for first, weight in zip(self.first, weights, strict=True)]
        self.moves = [keras.Variable(np.zeros_like(first), name=f"move{i}") for i, first in enumerate(self.first)]
        self.average = [np.zeros_like(first) for first in self.first]
        self.adam = keras.optimizers.Adam(rate, beta_2=0.99)
        self.adam.build(self.moves)

    def move(self, gradients):
        """One step of Adam, inside a graph."""
        import tensorflow as tf

        gradients = [tf.convert_to_tensor(g) * size for g, size in zip(gradients, self.sizes, strict=True)]
        self.adam.apply(tf.clip_by_global_norm(gradients, 10.0)[0], self.moves)
        for weight, first, size, move in zip(self.weights, self.first, self.sizes, self.moves, strict=True):
            weight.assign(first + size * move.value)

    def run(self, train, batch, part=AVERAGE, constant=False):
        """`train` of a batch at this step's learning rate, then the average; float64 array, its losses."""
        cosine = 1.0 if constant else 0.5 + 0.5 * np.cos(np.pi * self.step / self.steps)
        warm_up = max(1, min(WARM_UP, self.steps // 6))
        self.adam.learning_rate.assign(self.rate * min(1, (self.step + 1) / warm_up) * (FLOOR + (1 - FLOOR) * cosine))
        losses = train(*batch).numpy()
        if not np.isfinite(losses).all():
            raise SystemExit(f"step {self.step}: the loss is not finite")
        self.step += 1
        part = min(part, self.step / (19 + self.step))
        for average, move in zip(self.average, self.moves, strict=True):
            average *= part
            average += (1 - part) * move.numpy()
        return losses

    def save(self, path):
        state = {f"first{i}": first for i, first in enumerate(self.first)}
        state |= {f"move{i}": move.numpy() for i, move in enumerate(self.moves)}
        state |= {f"average{i}": average for i, average in enumerate(self.average)}
        state |= {f"adam{i}": np.asarray(value) for i, value in enumerate(self.adam.variables)}
        with atomic_write(path, "wb") as file:
            np.savez(file, step=self.step, **state)

    def resume(self, path):
        """Go on from a checkpoint. Before the first step: the graph takes the start of the weights as constants."""
        with np.load(path) as state:
            self.step = int(state["step"])
            for i, (first, move, average) in enumerate(zip(self.first, self.moves, self.average, strict=True)):
                first[:], average[:] = state[f"first{i}"], state[f"average{i}"]
                move.assign(state[f"move{i}"])
            for i, value in enumerate(self.adam.variables):
                value.assign(state[f"adam{i}"])
        self.sizes[:] = [self.sizes_of(first, w.path) for first, w in zip(self.first, self.weights, strict=True)]
        self.assign(self.moves)

    def assign(self, moves, blend=1.0):
        for weight, first, size, move in zip(self.weights, self.first, self.sizes, moves, strict=True):
            weight.assign(first + blend * size * np.asarray(move))


def unfold(weights, model):
    """Write weights of a folded network into `model`, whose batch normalization then only adds its bias."""
    from retinaface_tf.network.conv_block import BATCH_NORM_EPSILON

    folded = {weight.path: weight.numpy() for weight in weights}
    constants = {"gamma": np.sqrt(np.float32(1 + BATCH_NORM_EPSILON)), "moving_mean": 0.0, "moving_variance": 1.0}
    for weight in model.variables:
        if (path := weight.path.replace("normalisation/beta", "convolution/bias")) in folded:
            weight.assign(folded[path])
        elif "_head_" in path:
            kind, rest = path.split("_head_")
            values = folded[f"heads_{rest}"]
            values = values.reshape(*values.shape[:-1], 2, -1)[..., HEADS[kind]]  # of the two anchors of a cell
            weight.assign(values.reshape(weight.shape))
        elif (name := path.rpartition("/")[2]) in constants:
            weight.assign(np.full(weight.shape, constants[name], np.float32))
    return model


class Trainer(RelativeAdam):
    """The network, what it was before, and its losses."""

    def __init__(self, steps, landmarks=None, change=None):
        import tensorflow as tf

        from retinaface_tf import RetinaFace

        self.tf, self.change = tf, change
        self.landmarks = landmarks is not None
        self.start, self.model = (RetinaFace.from_preset(str(landmarks or START)).fold() for _ in range(2))
        weights = [w for w in self.model.trainable_variables if not self.landmarks or w.path.startswith("heads")]
        plain = {"sizes_of": lambda *_: np.float32(PLAIN_RATE / RATE)} if change == "plain-adam" else {}
        super().__init__(weights, RATE, steps, **plain)
        self.anchors = np.asarray(self.model.anchor_generator(SIDE, SIDE), np.float32)
        self.train = tf.function(self._train)

    def _train(self, images, label, score, box, landmarks, known):
        from retinaface_tf.training import losses

        tf, images = self.tf, self.tf.cast(images, self.tf.float32)
        anchors, sizes = self.anchors, self.anchors[:, 2:] - self.anchors[:, :2]
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2

        def corners(box):
            center = centers + 0.1 * sizes * box[..., :2]
            half = sizes * tf.exp(0.2 * tf.minimum(box[..., 2:], 12.0)) / 2
            return center - half, center + half

        def smooth(difference):
            size = tf.abs(difference)
            return tf.where(size < 1, 0.5 * size**2, size - 0.5)

        def margin(outputs):
            return outputs["face"][..., 1] - outputs["face"][..., 0]

        before = tf.sigmoid(margin(self.start(images, training=False)))
        face, background = tf.cast(label == 1, tf.float32), tf.cast(label == 0, tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in self.weights])
            outputs = self.model(images, training=False)
            (low, high), (true_low, true_high) = corners(outputs["box"]), corners(box)
            inside = tf.reduce_prod(tf.maximum(tf.minimum(high, true_high) - tf.maximum(low, true_low), 0), -1)
            areas = tf.reduce_prod(high - low, -1) + tf.reduce_prod(true_high - true_low, -1)
            iou = inside / (areas - inside + 1e-6)
            hull = tf.reduce_sum((tf.maximum(high, true_high) - tf.minimum(low, true_low)) ** 2, -1)
            apart = tf.reduce_sum((low + high - true_low - true_high) ** 2, -1) / 4 / (hull + 1e-6)
            hold = HOLD * (1 - face)
            if self.change == "labels-alone":
                before, hold = tf.zeros_like(before), HOLD * background
            wanted = face * tf.maximum(
                score * tf.minimum(1.0, 1.4 * tf.stop_gradient(iou)), before * tf.minimum(1.0, 1.05 * score)
            )
            wanted += (1 - face) * before * (1 - (1 - BACKGROUND) * background)
            wanted = tf.clip_by_value(wanted, 1e-6, 1 - 1e-6)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(wanted, tf.math.log(wanted) - tf.math.log(1 - wanted))
            divergence = tf.nn.sigmoid_cross_entropy_with_logits(wanted, margin(outputs)) - entropy
            logits, labeled = outputs["face"], face + background
            scores = {
                "mined": lambda: losses.mined_cross_entropy(logits, face, labeled, 7, 20),
                "focal": lambda: losses.focal_loss(logits, face, labeled),
                "quality-focal": lambda: losses.quality_focal_loss(logits, face * iou, labeled),
                "soft-focal": lambda: losses.quality_focal_loss(logits, wanted, face + hold),
            }.get(self.change, lambda: tf.reduce_sum(divergence * (face + hold)))()
            boxes, offsets = {"smooth-l1": (0.0, 1.0), "diou": (BOX, 0.0)}.get(self.change, (BOX, OFFSETS))
            faces, weight = tf.reduce_sum(face) + 1, face * score
            points = tf.reshape(outputs["landmark"], tf.shape(landmarks)) - landmarks
            if self.landmarks:  # in parts of the face
                points /= tf.sqrt(tf.reduce_prod(tf.exp(0.2 * box[..., 2:]), -1))[..., None, None]
            parts = [
                scores / faces,
                boxes * tf.reduce_sum((1 - iou + apart) * weight) / (tf.reduce_sum(weight) + 1),
                offsets * tf.reduce_sum(smooth(outputs["box"] - box) * weight[..., None]) / (tf.reduce_sum(weight) + 1),
                LANDMARKS * tf.reduce_sum(smooth(points) * known[..., None]) / (tf.reduce_sum(known) / 5 + 1),
            ]
            loss = parts[-1] if self.landmarks else tf.add_n(parts)
        self.move(tape.gradient(loss, [weight.value for weight in self.weights]))
        return tf.stack(parts)

    def fit(self, batch):
        """One step; float64 `[4]`: the losses of scores, boxes, their offsets, landmarks."""
        part = 0 if self.change == "no-average" else AVERAGE
        return self.run(self.train, batch, part, constant=self.change == "constant")

    def unfolded(self):
        """The network with batch normalization that changes nothing, as the bundled weights have it."""
        from retinaface_tf import RetinaFace

        return unfold(self.model.trainable_variables, RetinaFace.from_preset(START))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prepared", type=Path, required=True, metavar="DIR", help="what prepare.py wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--landmarks", type=Path, metavar="FILE", help="train its landmarks alone")
    parser.add_argument("--blend", type=float, metavar="PART", help="write blended.keras, with this part of the run")
    parser.add_argument("--change", choices=CHANGES, metavar="NAME", help=f"one of the recipe: {', '.join(CHANGES)}")
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    state = args.output / "state.npz"
    fork = multiprocessing.get_context("fork")  # before TensorFlow: the photos are not copied. Not on Windows
    queue, orders = fork.Queue(4), fork.Queue()
    if not args.blend:
        sets = read_photos(args.data, args.prepared)
        fork.Process(target=produce, args=(queue, orders, sets, args.seed, args.change), daemon=True).start()
        del sets
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    trainer = Trainer(args.steps, args.landmarks, args.change)
    if state.is_file():
        trainer.resume(state)
    if args.blend:
        trainer.assign(trainer.average, args.blend)
        trainer.unfolded().save(args.output / "blended.keras")
        return
    args.output.mkdir(parents=True, exist_ok=True)
    orders.put((trainer.anchors, trainer.step))
    recent = np.zeros(4)
    with tqdm(total=args.steps, initial=trainer.step, disable=None) as bar:
        while trainer.step < args.steps:
            recent += trainer.fit([tf.constant(each) for each in queue.get()])
            bar.update()
            if trainer.step % 100 == 0 or trainer.step == args.steps:
                bar.write(f"step {trainer.step}: " + ", ".join(f"{value:.4f}" for value in recent / 100))
                recent[:] = 0
            if trainer.step % 200 == 0 or trainer.step == args.steps:
                trainer.save(state)


if __name__ == "__main__":
    main()
