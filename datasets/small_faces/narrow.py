"""Halve the channels of the bundled network's pyramid, and teach the result to predict the same: a faster network.

    P="python datasets/small_faces/narrow.py --data DIR --output runs/narrow"
    $P
    python benchmarks/weights.py --data DIR --models mobilenet025_crowd runs/narrow/model.keras

The backbone stays as it is. Behind it, the half of the channels is kept that matters most to the next convolutions, and
the weights of each convolution are solved by least squares for what the whole network computes. Then the narrow part
learns all raw predictions of the whole network for the same crop. So no labels are needed.

If a run is stopped, the same command continues it from the last checkpoint, which is written every 200 steps. One
process makes crops, and one thread trains.
"""

import argparse
import io
import multiprocessing
import os
import sys
import time
from pathlib import Path
from queue import Empty, Full

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))  # which has a train.py, too
from train import channel_sizes
from weights import kept_apart

from retinaface_tf.common.files import atomic_write

START = "mobilenet025_crowd"
WINDOWS = ("window_3", "window_5", "window_7")
FIRST = ("window_3", "shared_5_7")  # convolutions of a context module that read its input
CONTEXT = {  # convolution -> the one that it reads, and those that read it beside the heads
    "window_3": ("", ()),
    "shared_5_7": ("", ("window_5", "inner_7")),
    "window_5": ("shared_5_7", ()),
    "inner_7": ("shared_5_7", ("window_7",)),
    "window_7": ("inner_7", ()),
}
LEVELS = {"P3": "body_stage1_5_pointwise", "P4": "body_stage2_5_pointwise", "P5": "body_stage3_1_pointwise"}
LONGEST = 1400  # pixels of a photo
SHARES = {  # of the crops
    "crowd_photos": 0.3,
    "web_faces": 0.2,
    "web_faces_more": 0.2,
    "mask_photos": 0.15,
    "point_faces": 0.08,
    "small_faces": 0.07,
}
CROPS = {256: 16, 512: 4}  # pixels of a side -> crops in a batch
LARGE = 0.35  # of the batches have large crops
FACES = {256: (6.0, 160.0), 512: (20.0, 500.0)}  # pixels that a face is brought to, log-uniform
AIMED, ENLARGED, LARGEST_SCALE = 0.5, 0.2, 4.0  # parts of the crops at a face, and far enlarged; their largest scale
MOSAIC, MIXED, BLUR, JPEG, COLOR = 0.2, 0.2, 0.4, 0.3, 0.5  # probabilities
SOLVED, POSITIONS = 12, 60_000  # batches, and cells of a map, of which weights are solved
LOWEST = -4.0  # logit from which boxes and landmarks are learned
RATE, WARM_UP, AVERAGE = 3e-3, 300, 0.999
BOX, LANDMARKS = 1.0, 0.3  # weights of the losses
MEAN = (123, 117, 104)


def find_faces(data, path):
    """Boxes of the faces of the training photos, to aim at: dict "set/photo" -> float32 `[F, 4]`; kept in a file."""
    if path.is_file():
        with np.load(path) as file:
            return dict(file)
    from retinaface_tf import load

    detector, found = load(START, threads=1), {}
    for name in SHARES:
        if not (data / name / "images").is_dir():
            print(f"{name}: left out, no {data / name / 'images'}", file=sys.stderr)
            continue
        photos = sorted(p for p in (data / name / "images").glob("*.jpg") if not kept_apart(p.name))
        for photo in tqdm(photos, desc=name, disable=None):
            found[f"{name}/{photo.name}"] = detector.detect(read(photo)).boxes
    if not found:
        raise SystemExit(f"{data}: no photos. Expected at least one of {', '.join(SHARES)}")
    with atomic_write(path, "wb") as file:
        np.savez(file, **found)
    return found


def read(path):
    with Image.open(path) as file:
        image = file.convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR)
    return np.asarray(image)


def crop(rng, image, boxes, side, faces):
    """uint8 `[side, side, 3]`: a part of a photo at a drawn scale, often with a face of `faces` (low, high) pixels."""
    height, width = image.shape[:2]
    kind, face = rng.random(), None
    if len(boxes) and kind < AIMED:
        face = boxes[rng.integers(len(boxes))].astype(float)
        scale = min(2.2, np.exp(rng.uniform(*np.log(faces))) / np.sqrt(max(1e-6, np.prod(face[2:] - face[:2]))))
    else:
        scale = np.exp(rng.uniform(*np.log((1.0, LARGEST_SCALE) if kind > 1 - ENLARGED else (0.3, 1.5))))
    scale = float(max(scale, 0.1))
    window, corner = side / scale, []
    for axis, length in enumerate((width, height)):
        low, high = 0.0, length - window
        if face is not None:
            low, high = max(low, face[axis + 2] - window), min(high, face[axis])
        if window >= length:
            low = high = -(window - length) * rng.random()
        elif high < low:
            low = high = float(np.clip((face[axis] + face[axis + 2] - window) / 2, 0, length - window))
        corner.append(rng.uniform(low, high))
    corner = np.array(corner)
    low, high = np.maximum(corner, 0), np.minimum(corner + window, (width, height))
    start = np.round((low - corner) * scale).astype(int).clip(0, side - 1)
    size = np.minimum(np.maximum(np.round((high - low) * scale).astype(int), 1), side - start)
    first = low.astype(int)
    part = Image.fromarray(image[first[1] : int(np.ceil(high[1])), first[0] : int(np.ceil(high[0]))])
    resample = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
    part = part.resize(
        tuple(size), resample, box=(*(low - first), *np.minimum(high - first, part.size)), reducing_gap=3
    )
    canvas = np.full((side, side, 3), MEAN, np.uint8)
    canvas[start[1] : start[1] + size[1], start[0] : start[0] + size[0]] = part
    return canvas[:, ::-1] if rng.random() < 0.5 else canvas


def example(rng, draw, side):
    """A crop, four of them, or two mixed, which is no photo, but the whole network has an answer to it."""
    if rng.random() < MOSAIC and side == min(CROPS):
        parts = [crop(rng, *draw(), side // 2, FACES[side]) for _ in range(4)]
        image = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
    else:
        image = crop(rng, *draw(), side, FACES[side])
    pixels = image.astype(np.float32)
    if rng.random() < MIXED:
        part = rng.uniform(0.1, 0.6)
        pixels = (1 - part) * pixels + part * crop(rng, *draw(), side, FACES[side])[:: rng.choice([1, -1])]
    if rng.random() < COLOR:
        pixels = (pixels - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-28, 28)
        gray = pixels.mean(axis=-1, keepdims=True)
        pixels = gray + (pixels - gray) * (0 if rng.random() < 0.1 else rng.uniform(0.6, 1.4))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < BLUR:
        less = np.maximum(2, np.round(side / np.exp(rng.uniform(0, np.log(2.6), 2)))).astype(int)
        image = image.resize(tuple(less), Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < JPEG:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(30, 92)))
        image = Image.open(file)
    return np.asarray(image)


def produce(queue, data, found, seed):
    """Batches uint8 `[N, side, side, 3]` as long as the parent lives."""
    sets, cache = {}, {}
    for name, boxes in found.items():
        sets.setdefault(name.partition("/")[0], []).append((name, boxes))
    names = list(sets)
    shares = np.array([SHARES[name] for name in names])
    rng = np.random.default_rng(seed)

    def draw():
        photos = sets[names[rng.choice(len(names), p=shares / shares.sum())]]
        name, boxes = photos[rng.integers(len(photos))]
        if name not in cache:
            folder, _, file = name.partition("/")
            cache[name] = read(data / folder / "images" / file)
        return cache[name], boxes

    while True:
        side = max(CROPS) if rng.random() < LARGE else min(CROPS)
        batch = np.stack([example(rng, draw, side) for _ in range(CROPS[side])])
        while True:
            try:
                queue.put(batch, timeout=10)
                break
            except Full:
                if not multiprocessing.parent_process().is_alive():
                    os._exit(1)


class Narrower:
    """Fills the weights of a folded network that has half of the channels of a whole one behind the backbone.

    Both networks run side by side on the same maps of the backbone. Every convolution of the narrow one reads what the
    narrow one has computed so far, so its weights also make up for what was lost before.
    """

    def __init__(self, whole, narrow, seed=0):
        self.rng, self.slope = np.random.default_rng(seed), 0.1
        self.whole = {weight.path: weight.numpy() for weight in whole.variables}
        self.narrow = {weight.path: weight for weight in narrow.variables}

    def fill(self, maps):
        """All weights, on `maps` of the backbone: dict level, fine to coarse -> float32 `[N, H, W, C]`."""
        kept, coarser, levels = None, None, list(maps)
        for level, finer in reversed(list(zip(levels, [None, *levels], strict=False))):
            readers = [*([f"pyramid/merge_{finer}"] if finer else []), *(f"context_{level}/{n}" for n in FIRST)]
            name, x = f"pyramid/lateral_{level}", maps[level]
            if coarser is None:
                kept = self.keep(self.compute(name, x, self.slope), *readers)
            # What is added has the same channels, so a level keeps those of the coarser one for its lateral map.
            pair = self.compute(name, x, self.slope), self.solve(name, x, self.compute(name, x), self.slope, kept)
            if coarser is not None:
                whole, narrow = (own + enlarge(other, own) for own, other in zip(pair, coarser, strict=True))
                name = f"pyramid/merge_{level}"
                outputs = self.compute(name, whole)
                kept = self.keep(leaky(outputs, self.slope), *readers)
                pair = leaky(outputs, self.slope), self.solve(name, narrow, outputs, self.slope, kept)
            self.fill_context(level, *pair)
            coarser = pair

    def fill_context(self, level, whole, narrow):
        wholes, narrows = {"": whole}, {"": narrow}
        for name, (source, readers) in CONTEXT.items():
            path, slope = f"context_{level}/{name}", 0.0 if name.startswith("window") else self.slope
            outputs = self.compute(path, wholes[source])
            wholes[name] = leaky(outputs, slope)
            kept = self.keep(wholes[name], *(f"context_{level}/{n}" for n in readers), heads=(level, name))
            narrows[name] = self.solve(path, narrows[source], outputs, slope, kept)
        whole, narrow = (np.concatenate([each[name] for name in WINDOWS], axis=-1) for each in (wholes, narrows))
        outputs = self.compute(f"heads_{level}", whole)
        raw = outputs.reshape(*outputs.shape[:3], -1, 16)
        logits = (raw[..., 1] - raw[..., 0]).max(axis=-1)
        self.solve(f"heads_{level}", narrow, outputs, 1.0, weights=0.02 + 1 / (1 + np.exp(-logits)))  # faces count most

    def compute(self, name, x, slope=1.0):
        """What a convolution of the whole network makes of `x`, and a leaky ReLU of it: float32 `[N, H, W, C]`."""
        import tensorflow as tf

        kernel, bias = (self.whole[f"{name}/convolution/{kind}"] for kind in ("kernel", "bias"))
        return leaky(tf.nn.conv2d(x, kernel, 1, "SAME").numpy() + bias, slope)

    def keep(self, x, *readers, heads=None):
        """The half of the channels of `x` that changes most what the convolutions `readers` compute: sorted indices."""
        read = sum((self.whole[f"{name}/convolution/kernel"] ** 2).sum(axis=(0, 1, 3)) for name in readers)
        if not readers:
            level, window = heads
            read = (self.whole[f"heads_{level}/convolution/kernel"] ** 2).sum(axis=(0, 1, 3))
            read = dict(zip(WINDOWS, np.split(read, [len(read) // 2, 3 * len(read) // 4]), strict=True))[window]
        return np.sort(np.argsort(-x.var(axis=(0, 1, 2)) * read)[: len(read) // 2])

    def solve(self, name, x, outputs, slope, kept=slice(None), weights=None):
        """Solve a convolution of the narrow network, from `x` to the channels `kept` of `outputs`: its map."""
        import tensorflow as tf

        kernel, bias = (self.narrow[f"{name}/convolution/{kind}"] for kind in ("kernel", "bias"))
        size = kernel.shape[0]
        patches = tf.image.extract_patches(x, [1, size, size, 1], [1] * 4, [1] * 4, "SAME").numpy()
        weights = np.ones(x.shape[:3]) if weights is None else weights
        chosen = self.rng.permutation(weights.size)[:POSITIONS]
        a, b, w = (
            each.reshape(weights.size, -1)[chosen].astype(np.float64) for each in (patches, outputs[..., kept], weights)
        )
        mean_a, mean_b = ((each * w).sum(axis=0) / w.sum() for each in (a, b))
        a, b = a - mean_a, b - mean_b
        square = (a * w).T @ a
        square += 1e-4 * np.trace(square) / len(square) * np.eye(len(square))
        solution = np.linalg.solve(square, (a * w).T @ b)
        print(f"{name}: {(w * (a @ solution - b) ** 2).sum() / (w * b**2).sum():.3f} of the variance is lost")
        kernel.assign(solution.reshape(kernel.shape))
        bias.assign(mean_b - mean_a @ solution)
        return leaky(tf.nn.conv2d(x, kernel.value, 1, "SAME").numpy() + bias.numpy(), slope)


def leaky(x, slope):
    return np.where(x < 0, slope * x, x).astype(np.float32)


def enlarge(x, like):
    """Nearest, to twice the size."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : like.shape[1], : like.shape[2]]


class Trainer:
    """The narrow part of the network, the moves of its weights, their average, and Adam."""

    def __init__(self, steps, batches):
        import keras
        import tensorflow as tf

        from retinaface_tf import RetinaFace

        self.tf, self.steps, self.step = tf, steps, 0
        start = RetinaFace.from_preset(START)
        whole = start.fold()
        self.unfolded = RetinaFace(
            num_filters=start.num_filters // 2,
            anchors=start.anchor_generator.sizes,
            pixel_mean=start.pixel_mean,
            pixel_std=start.pixel_std,
        )
        self.model = self.unfolded.fold()
        backbone = {weight.path: weight.numpy() for weight in start.variables if weight.path.startswith("body_")}
        for weight in self.unfolded.variables:
            if weight.path in backbone:
                weight.assign(backbone[weight.path])
            elif weight.path.endswith("moving_variance"):  # this batch normalization only adds its bias
                weight.assign(np.full(weight.shape, 1 - 1e-5, np.float32))
        maps = [whole.get_layer(name).output for name in LEVELS.values()]
        self.whole = keras.Model(
            whole.inputs, [maps, whole.outputs if isinstance(whole.output, list) else whole.output]
        )
        look = keras.Model(whole.inputs, maps)
        parts = [[np.asarray(m) for m in look(tf.cast(images, tf.float32), training=False)] for images in batches]
        stacked = {level: np.concatenate([part[i] for part in parts]) for i, level in enumerate(LEVELS)}
        Narrower(whole, self.model).fill(stacked)
        self.weights = [weight for weight in self.model.trainable_variables if not weight.path.startswith("body_")]
        self.first = [weight.numpy() for weight in self.weights]
        self.sizes = [channel_sizes(first, w.path) for first, w in zip(self.first, self.weights, strict=True)]
        self.moves = [keras.Variable(np.zeros_like(first), name=f"move{i}") for i, first in enumerate(self.first)]
        self.average = [np.zeros_like(first) for first in self.first]
        self.adam = keras.optimizers.Adam(RATE, beta_2=0.99)
        self.adam.build(self.moves)
        self.train = tf.function(self._train, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])

    def _predict(self, maps):
        """Raw predictions `[N, A, 16]` of the narrow part."""
        features = {f"C{level[1]}": x for level, x in zip(LEVELS, maps, strict=True)}
        pyramid = self.model.get_layer("pyramid")(features)
        rows = [self.model.get_layer(f"heads_{p}")(self.model.get_layer(f"context_{p}")(pyramid[p])) for p in LEVELS]
        return self.tf.concat(rows, axis=1)

    def _train(self, images):
        tf = self.tf
        maps, wanted = self.whole(tf.cast(images, tf.float32), training=False)
        wanted = {kind: tf.stop_gradient(x) for kind, x in wanted.items()}
        logits = wanted["face"][..., 1] - wanted["face"][..., 0]
        points = tf.reshape(wanted["landmark"], (tf.shape(logits)[0], -1, 10))
        weights = [weight.value for weight in self.weights]
        levels = [2 * (tf.shape(images)[1] // 2 ** int(level[1])) ** 2 for level in LEVELS]

        def smooth(difference):
            size = tf.abs(difference)
            return tf.reduce_sum(tf.where(size < 1, 0.5 * size**2, size - 0.5), axis=-1)

        def divergence(wanted, have):
            soft = tf.nn.sigmoid_cross_entropy_with_logits
            return soft(tf.sigmoid(wanted), have) - soft(tf.sigmoid(wanted), wanted)

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            raw = self._predict(maps)
            have = raw[..., 1] - raw[..., 0]
            scores = divergence(logits, have) + 2 * divergence(logits / 2, have / 2)
            faces = tf.sigmoid(logits)
            weight = tf.where(logits > LOWEST, tf.sqrt(faces), 0.0)
            each = {
                "score": (scores, faces),
                "box": (BOX * weight * smooth(raw[..., 2:6] - wanted["box"]), weight),
                "landmarks": (LANDMARKS * weight * smooth(raw[..., 6:] - points), weight),
            }
            parts = [
                tf.add_n(
                    [
                        tf.reduce_sum(part) / (tf.reduce_sum(weight) + 8)
                        for part, weight in zip(tf.split(loss, levels, 1), tf.split(of, levels, 1), strict=True)
                    ]
                )
                for loss, of in each.values()
            ]
            loss = tf.add_n(parts)
        gradients = tape.gradient(loss, weights)
        gradients = [tf.convert_to_tensor(g) * size for g, size in zip(gradients, self.sizes, strict=True)]
        self.adam.apply(tf.clip_by_global_norm(gradients, 10.0)[0], self.moves)
        for w, first, size, move in zip(self.weights, self.first, self.sizes, self.moves, strict=True):
            w.assign(first + size * move.value)
        return tf.stack(parts)

    def fit(self, batch):
        """One step; float64 `[3]`: the losses of scores, boxes, landmarks."""
        cosine = 0.5 + 0.5 * np.cos(np.pi * self.step / self.steps)
        self.adam.learning_rate.assign(RATE * min(1, (self.step + 1) / WARM_UP) * (0.02 + 0.98 * cosine))
        losses = self.train(batch).numpy()
        if not np.isfinite(losses).all():
            raise SystemExit(f"step {self.step}: the loss is not finite")
        self.step += 1
        part = min(AVERAGE, self.step / (19 + self.step))
        for average, move in zip(self.average, self.moves, strict=True):
            average *= part
            average += (1 - part) * move.numpy()
        return losses

    def save(self, path):
        state = {f"first{i}": first for i, first in enumerate(self.first)}
        state |= {f"average{i}": average for i, average in enumerate(self.average)}
        variables = [*self.moves, *self.adam.variables]
        state |= {f"variable{i}": np.asarray(variable) for i, variable in enumerate(variables)}
        with atomic_write(path, "wb") as file:
            np.savez(file, step=self.step, **state)

    def resume(self, path):
        with np.load(path) as state:
            self.step = int(state["step"])
            for i, (first, average) in enumerate(zip(self.first, self.average, strict=True)):
                first[:], average[:] = state[f"first{i}"], state[f"average{i}"]
            for i, variable in enumerate([*self.moves, *self.adam.variables]):
                variable.assign(state[f"variable{i}"])
        self.sizes[:] = [channel_sizes(first, w.path) for first, w in zip(self.first, self.weights, strict=True)]
        self.assign(self.moves)

    def assign(self, moves):
        for weight, first, size, move in zip(self.weights, self.first, self.sizes, moves, strict=True):
            weight.assign(first + size * np.asarray(move))

    def write(self, path):
        """The network with the averaged weights, with batch normalization that only adds its bias."""
        from retinaface_tf.network.heads import HEADS, columns_of

        self.assign(self.average)
        folded = {weight.path: weight.numpy() for weight in self.weights}
        self.assign(self.moves)
        for weight in self.unfolded.variables:
            name = weight.path.replace("normalisation/beta", "convolution/bias")
            if name in folded:
                weight.assign(folded[name])
            elif "_head_" in name:
                kind, rest = name.split("_head_")
                values = folded[f"heads_{rest}"]
                values = values.reshape(*values.shape[:-1], 2, -1)[..., columns_of(HEADS)[kind]]
                weight.assign(values.reshape(weight.shape))
        self.unfolded.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=18000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    args.output.mkdir(parents=True, exist_ok=True)
    state = args.output / "state.npz"
    found = find_faces(args.data, args.output / "faces.npz")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue(16)
    seed = [args.seed, int(time.time()) if state.is_file() else 0]
    producer = spawn.Process(target=produce, args=(queue, args.data, found, seed), daemon=True)
    producer.start()

    def take():
        while True:
            try:
                return queue.get(timeout=10)
            except Empty:
                if not producer.is_alive():
                    raise SystemExit("The process that makes crops ended. Its error is above") from None

    batches = [take() for _ in range(SOLVED)]
    trainer = Trainer(args.steps, [images for images in batches if images.shape[1] == min(CROPS)])
    if state.is_file():
        trainer.resume(state)
    recent = np.zeros(3)
    with tqdm(total=args.steps, initial=trainer.step, disable=None) as bar:
        while trainer.step < args.steps:
            recent += trainer.fit(tf.constant(take()))
            bar.update()
            if trainer.step % 100 == 0:
                bar.write(f"step {trainer.step}: " + ", ".join(f"{value:.4f}" for value in recent / 100))
                recent[:] = 0
            if trainer.step % 200 == 0 or trainer.step == args.steps:
                trainer.save(state)
                trainer.write(args.output / "model.keras")


if __name__ == "__main__":
    main()
