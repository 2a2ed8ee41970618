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
import multiprocessing
import os
import sys
import time
from pathlib import Path
from queue import Empty, Full
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))  # which has a train.py, too
from train import MOSAIC, SHARES, RelativeAdam, crop, recolored, unfold
from weights import kept_apart

from retinaface_tf.common.files import atomic_write
from retinaface_tf.image.loading import ImageError, load_image

START = "mobilenet025_crowd"
LEVELS = {"P3": "body_stage1_5_pointwise", "P4": "body_stage2_5_pointwise", "P5": "body_stage3_1_pointwise"}
WINDOWS = ("window_3", "window_5", "window_7")  # what the heads read of a context module
FIRST = ("window_3", "shared_5_7")  # what reads the input of a context module
CONTEXT = {  # convolution of a context module -> the one that it reads, and those that read it
    "window_3": ("", ()),
    "shared_5_7": ("", ("window_5", "inner_7")),
    "window_5": ("shared_5_7", ()),
    "inner_7": ("shared_5_7", ("window_7",)),
    "window_7": ("inner_7", ()),
}
CROPS = {256: 16, 512: 4}  # pixels of a side -> crops in a batch
LARGE = 0.35  # of the batches have large crops
FACES = {256: (6.0, 160.0), 512: (20.0, 500.0)}  # pixels that a face is brought to
MIXED = 0.2  # of the crops are mixed with another
SOLVED, POSITIONS = 12, 60_000  # batches, and cells of a map, of which weights are solved
SLOPE = 0.1  # of the leaky ReLUs
LOWEST = -4.0  # logit from which boxes and landmarks are learned
RATE = 3e-3
BOX, LANDMARKS = 1.0, 0.3  # weights of the losses


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
            try:
                found[f"{name}/{photo.name}"] = detector.detect(photo).boxes
            except ImageError as error:
                print(f"{error}. It is left out", file=sys.stderr)
    if not found:
        raise SystemExit(
            f"{data}: no photos. Expected at least one of the folders {', '.join(SHARES)}, each with images/*.jpg"
        )
    with atomic_write(path, "wb") as file:
        np.savez(file, **found)
    return found


def example(rng, draw, side):
    """uint8 `[side, side, 3]`: a crop, four of them, or two mixed, which is no photo, but has an answer as well."""
    if side == min(CROPS) and rng.random() < MOSAIC:
        parts = [crop(rng, draw(), side // 2, faces=FACES[side]).image for _ in range(4)]
        image = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
    else:
        image = crop(rng, draw(), side, faces=FACES[side]).image
    if rng.random() < MIXED:
        part, other = rng.uniform(0.1, 0.6), crop(rng, draw(), side, faces=FACES[side]).image
        image = (1 - part) * image + part * other[:: rng.choice([1, -1])]
    return recolored(rng, image)


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
            count = len(boxes)
            cache[name] = SimpleNamespace(
                image=load_image(data / folder / "images" / file),
                boxes=boxes,
                landmarks=np.zeros((count, 5, 2), np.float32),
                scores=np.ones(count, np.float32),
                regions=np.zeros((0, 4), np.float32),
            )
        return cache[name]

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
        self.rng = np.random.default_rng(seed)
        self.whole = {weight.path: weight.numpy() for weight in whole.variables}
        self.narrow = {weight.path: weight for weight in narrow.variables}

    def fill(self, maps):
        """All weights, on `maps` of the backbone: dict level, fine to coarse -> float32 `[N, H, W, C]`."""
        kept, coarser, levels = None, None, list(maps)
        for level, finer in reversed(list(zip(levels, [None, *levels], strict=False))):
            readers = [f"pyramid/merge_{finer}"] if finer else []
            kernels = [self.kernel(name) for name in (*readers, *(f"context_{level}/{name}" for name in FIRST))]
            name, x = f"pyramid/lateral_{level}", maps[level]
            outputs = self.compute(name, x)
            if coarser is None:
                kept = keep(leaky(outputs, SLOPE), kernels)
            # The coarser level is added to it, so a lateral map keeps the same channels.
            whole, narrow = leaky(outputs, SLOPE), leaky(self.solve(name, x, outputs[..., kept]), SLOPE)
            if coarser is not None:
                whole, narrow = whole + enlarge(coarser[0], whole), narrow + enlarge(coarser[1], narrow)
                name = f"pyramid/merge_{level}"
                outputs = self.compute(name, whole)
                whole = leaky(outputs, SLOPE)
                kept = keep(whole, kernels)
                narrow = leaky(self.solve(name, narrow, outputs[..., kept]), SLOPE)
            self.fill_context(level, whole, narrow)
            coarser = whole, narrow

    def fill_context(self, level, whole, narrow):
        """A context module and the heads that read it."""
        wholes, narrows = {"": whole}, {"": narrow}
        heads, channels = self.kernel(f"heads_{level}"), whole.shape[-1]
        parts = np.split(heads, [channels // 2, 3 * channels // 4], axis=2)
        for name, (source, readers) in CONTEXT.items():
            path, slope = f"context_{level}/{name}", 0.0 if name in WINDOWS else SLOPE
            kernels = [self.kernel(f"context_{level}/{reader}") for reader in readers]
            outputs = self.compute(path, wholes[source])
            wholes[name] = leaky(outputs, slope)
            kept = keep(wholes[name], kernels or [parts[WINDOWS.index(name)]])
            narrows[name] = leaky(self.solve(path, narrows[source], outputs[..., kept]), slope)
        whole, narrow = (np.concatenate([each[name] for name in WINDOWS], axis=-1) for each in (wholes, narrows))
        outputs = self.compute(f"heads_{level}", whole)
        raw = outputs.reshape(*outputs.shape[:3], -1, 16)
        scores = 1 / (1 + np.exp((raw[..., 0] - raw[..., 1]).min(axis=-1)))
        self.solve(f"heads_{level}", narrow, outputs, weights=0.02 + scores)  # faces count most

    def kernel(self, name):
        return self.whole[f"{name}/convolution/kernel"]

    def compute(self, name, x):
        """What a convolution of the whole network makes of `x`: float32 `[N, H, W, C]`."""
        import tensorflow as tf

        return tf.nn.conv2d(x, self.kernel(name), 1, "SAME").numpy() + self.whole[f"{name}/convolution/bias"]

    def solve(self, name, x, outputs, weights=None):
        """Solve a convolution of the narrow network, from `x` to `outputs`: what it makes of `x`.

        `weights` `[N, H, W]` say how much the error of each cell counts.
        """
        import tensorflow as tf

        kernel, bias = (self.narrow[f"{name}/convolution/{kind}"] for kind in ("kernel", "bias"))
        size = kernel.shape[0]
        patches = tf.image.extract_patches(x, [1, size, size, 1], [1] * 4, [1] * 4, "SAME").numpy()
        weights = np.ones(x.shape[:3]) if weights is None else weights
        chosen = self.rng.permutation(weights.size)[:POSITIONS]
        a, b, w = (each.reshape(weights.size, -1)[chosen].astype(np.float64) for each in (patches, outputs, weights))
        mean_a, mean_b = ((each * w).sum(axis=0) / w.sum() for each in (a, b))
        a, b = a - mean_a, b - mean_b
        square = (a * w).T @ a
        square += 1e-4 * np.trace(square) / len(square) * np.eye(len(square))
        solution = np.linalg.solve(square, (a * w).T @ b)
        print(f"{name}: {(w * (a @ solution - b) ** 2).sum() / (w * b**2).sum():.3f} of the variance is lost")
        kernel.assign(solution.reshape(kernel.shape))
        bias.assign(mean_b - mean_a @ solution)
        return tf.nn.conv2d(x, kernel.value, 1, "SAME").numpy() + bias.numpy()


def keep(x, kernels):
    """The half of the channels of `x` `[N, H, W, C]` that changes most what `kernels` make of it: sorted indices."""
    read = sum((kernel**2).sum(axis=(0, 1, 3)) for kernel in kernels)
    return np.sort(np.argsort(-x.var(axis=(0, 1, 2)) * read)[: len(read) // 2])


def leaky(x, slope):
    return np.where(x < 0, slope * x, x).astype(np.float32)


def enlarge(x, like):
    """Nearest, to twice the size."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : like.shape[1], : like.shape[2]]


class Trainer(RelativeAdam):
    """The narrow part of the network, which learns what the whole one predicts."""

    def __init__(self, steps, batches):
        import keras
        import tensorflow as tf

        from retinaface_tf import RetinaFace

        self.tf = tf
        start = RetinaFace.from_preset(START)
        whole = start.fold()
        self.unfolded = RetinaFace(**{**start.get_config(), "num_filters": start.num_filters // 2})
        backbone = {weight.path: weight.numpy() for weight in start.variables if weight.path.startswith("body_")}
        for weight in self.unfolded.variables:
            if weight.path in backbone:
                weight.assign(backbone[weight.path])
        self.model = self.unfolded.fold()
        maps = [whole.get_layer(name).output for name in LEVELS.values()]
        self.whole = keras.Model(whole.inputs, [maps, whole.output])
        parts = [self.whole(tf.cast(images, tf.float32), training=False)[0] for images in batches]
        Narrower(whole, self.model).fill({level: np.concatenate(x) for level, *x in zip(LEVELS, *parts, strict=True)})
        super().__init__([w for w in self.model.trainable_variables if not w.path.startswith("body_")], RATE, steps)
        self.train = tf.function(self._train, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])

    def _predict(self, maps):
        """Raw predictions `[N, A, 16]` of the narrow part."""
        features = {f"C{level[1]}": x for level, x in zip(LEVELS, maps, strict=True)}
        pyramid = self.model.get_layer("pyramid")(features)
        rows = [self.model.get_layer(f"heads_{p}")(self.model.get_layer(f"context_{p}")(pyramid[p])) for p in LEVELS]
        return self.tf.concat(rows, axis=1)

    def _train(self, images):
        tf = self.tf
        maps, target = self.whole(tf.cast(images, tf.float32), training=False)
        target_logits = target["face"][..., 1] - target["face"][..., 0]
        target_points = tf.reshape(target["landmark"], (tf.shape(images)[0], -1, 10))
        levels = [2 * (tf.shape(images)[1] // 2 ** int(level[1])) ** 2 for level in LEVELS]  # anchors
        scores = tf.sigmoid(target_logits)
        weight = tf.where(target_logits > LOWEST, tf.sqrt(scores), 0.0)

        def smooth_l1(difference):
            size = tf.abs(difference)
            return tf.reduce_sum(tf.where(size < 1, 0.5 * size**2, size - 0.5), axis=-1)

        def divergence(logits, temperature):
            """Kullback-Leibler divergence from the target scores, both logits divided by a temperature."""
            probability, entropy = tf.sigmoid(target_logits / temperature), tf.nn.sigmoid_cross_entropy_with_logits
            return entropy(probability, logits / temperature) - entropy(probability, target_logits / temperature)

        def mean(losses, weights):
            """Sum over levels of the weighted means."""
            pairs = zip(tf.split(losses, levels, 1), tf.split(weights, levels, 1), strict=True)
            return tf.add_n([tf.reduce_sum(loss) / (tf.reduce_sum(weight) + 8) for loss, weight in pairs])

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in self.weights])
            raw = self._predict(maps)
            logits = raw[..., 1] - raw[..., 0]
            losses = [
                mean(divergence(logits, 1) + 2 * divergence(logits, 2), scores),
                mean(BOX * weight * smooth_l1(raw[..., 2:6] - target["box"]), weight),
                mean(LANDMARKS * weight * smooth_l1(raw[..., 6:] - target_points), weight),
            ]
            loss = tf.add_n(losses)
        self.move(tape.gradient(loss, [weight.value for weight in self.weights]))
        return tf.stack(losses)

    def write(self, path):
        """The network with the averaged weights, as the bundled presets have it."""
        self.assign(self.average)
        unfold(self.model.trainable_variables, self.unfolded).save(path)
        self.assign([move.numpy() for move in self.moves])


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
            recent += trainer.run(trainer.train, [tf.constant(take())])
            bar.update()
            if trainer.step % 100 == 0:
                bar.write(f"step {trainer.step}: " + ", ".join(f"{value:.4f}" for value in recent / 100))
                recent[:] = 0
            if trainer.step % 200 == 0 or trainer.step == args.steps:
                trainer.save(state)
                trainer.write(args.output / "model.keras")


if __name__ == "__main__":
    main()
