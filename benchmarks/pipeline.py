"""Speed of the training pipeline: images a second, beside what a training step consumes, and what each stage costs.

    python benchmarks/pipeline.py --images DIR --annotations wider_face_val.mat

Photos are those of DIR that the annotations name, whatever folder they are in, `--copies` times. The pipeline alone and
the forward and backward pass of the network alone (its outputs summed, no targets, no losses) take turns; rates are
medians of `--repeat` turns. Stages are timed in processor time of the whole process, so that who else uses the machine
matters less: each row is a pipeline that ends there, and its difference to the row above.
"""

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN

# isort: split
import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from retinaface_tf import RetinaFace
from retinaface_tf.annotations.annotations import join
from retinaface_tf.annotations.widerface import read_widerface
from retinaface_tf.data.augment import Augmentation, distort_colors, fill_around, resize
from retinaface_tf.data.crop import crop_faces
from retinaface_tf.data.example import parse_example
from retinaface_tf.data.fields import FACE_FIELDS, complete_faces
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import raw_steps, training_dataset
from retinaface_tf.data.shards import ConvertOptions, write_shards

BATCH, SEED = 8, 0
WHOLE = "mirror, guard, pad into batches"


def make_shards(images, annotations, copies, output):
    photos = {path.name: path for path in images.rglob("*.jpg")}
    labels = read_widerface(annotations)
    paths = {label.files[0]: photos.get(Path(label.files[0]).name) for label in labels}
    found = [
        label.replace(files=(str(paths[label.files[0]].relative_to(images)),))
        for label in labels
        if paths[label.files[0]]
    ]
    if not found:
        sys.exit(f"{images}: no .jpg there that {annotations} names")
    write_shards(join(found * copies), images, output, ConvertOptions(8, decode=False), source={})
    return open_shards(output)


def stages(augmentation):
    """Name -> function of one record and its seed: the pipeline up to there."""

    def parse(record, seed):
        return parse_example(record)

    def choose(record, seed):
        example = parse(record, seed)
        square = augmentation.choose(example, seed)
        faces = crop_faces(
            complete_faces(example, FACE_FIELDS), FACE_FIELDS, square, image_size=augmentation.image_size
        )
        return example, square, faces

    def decode(record, seed):
        example, square, faces = choose(record, seed)
        return *augmentation.cut(example, square), faces

    def color(record, seed):
        patch, place, faces = decode(record, seed)
        return distort_colors(patch, seed, **augmentation.colors), place, faces

    def to_size(record, seed):
        patch, place, faces = color(record, seed)
        canvas = fill_around(patch, place, tf.constant(augmentation.fill, tf.uint8))
        index = tf.random.stateless_uniform([], seed, 0, len(augmentation.interpolations), tf.int32)
        return resize(canvas, augmentation.image_size, index, augmentation.interpolations), faces

    return {
        "parse": parse,
        "choose the square, crop the faces": choose,
        "decode the square": decode,
        "color": color,
        "fill and resize": to_size,
    }


def costs(paths, photos, image_size, count, repeat):
    """Stage -> processor milliseconds a photo, of the pipeline up to there: medians."""
    shared = {"batch_size": BATCH, "seed": SEED}
    records = raw_steps(paths, photos, **shared).map(lambda _, batch: batch).unbatch()
    pipelines = {"read and shuffle raw records": records}
    for name, stage in stages(Augmentation(image_size)).items():
        pipelines[name] = records.enumerate().map(
            lambda number, record, stage=stage: stage(record, tf.stack([tf.constant(SEED, tf.int64), number])),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    pipelines[WHOLE] = training_dataset(paths, photos, image_size=image_size, **shared)
    times = {name: [] for name in pipelines}
    iterators = {name: iter(dataset) for name, dataset in pipelines.items()}
    for turn in range(repeat + 1):  # the first one is to warm up
        for name, iterator in iterators.items():
            number = count // BATCH if name == WHOLE else count
            start = time.process_time()
            for _ in range(number):
                next(iterator)
            time.sleep(1)  # read-ahead is full before and after, so that as much is made as is taken
            if turn:
                times[name].append((time.process_time() - start) * 1000 / count)
    return {name: statistics.median(those) for name, those in times.items()}


def rates(paths, photos, image_size, seconds, repeat):
    """(images a second of the pipeline alone, of the network's two passes alone): medians of turns."""
    iterator = iter(training_dataset(paths, photos, image_size=image_size, batch_size=BATCH, seed=SEED))
    model = RetinaFace.from_preset("mobilenet025", load_weights=False)
    images, _ = next(iterator)

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(value) for value in model(images, training=True).values()])
        return tf.add_n([tf.reduce_sum(one) for one in tape.gradient(loss, model.trainable_variables)])

    def rate(run, skip):
        for _ in range(skip):
            run()
        start, number = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            run()
            number += 1
        return BATCH * number / (time.perf_counter() - start)

    step(images)
    turns = []
    for _ in range(repeat):
        # The batches that were made ahead while the network ran are not counted.
        data = rate(lambda: next(iterator), skip=12)
        time.sleep(1)
        turns.append((data, rate(lambda: step(images).numpy(), skip=1)))
    return [statistics.median(those) for those in zip(*turns, strict=True)], [a / b for a, b in turns]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--annotations", required=True, type=Path, metavar="FILE")
    parser.add_argument("--copies", type=int, default=40, metavar="N")
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 320], metavar="PIXELS")
    parser.add_argument("--photos", type=int, default=400, metavar="N", help="of each stage and turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest, paths = make_shards(args.images, args.annotations, args.copies, Path(folder) / "shards")
        photos = manifest["counts"]["photos"]
        for size in args.sizes:
            (data, network), ratios = rates(paths, photos, size, args.seconds, args.repeat)
            print(
                f"\n{size} px, batches of {BATCH}: pipeline {data:.0f} images/s, forward and backward {network:.1f} "
                f"images/s, ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            )
            before, table = 0.0, costs(paths, photos, size, args.photos, args.repeat)
            print(f"  {'stage':<36}{'ms a photo':>12}{'up to here':>12}")
            for name, total in table.items():
                print(f"  {name:<36}{total - before:>12.2f}{total:>12.2f}")
                before = total


if __name__ == "__main__":
    main()
