"""Read shards as augmented, padded batches: infinite for training, each photo once for validation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from retinaface_tf.data.augment import Augmentation, mosaic, plain
from retinaface_tf.data.example import parse_example
from retinaface_tf.data.fields import BOXES, FaceField, Faces, complete_faces, empty_faces

if TYPE_CHECKING:
    from retinaface_tf.data.augment import Augmentation


PHOTO = ("encoded", "height", "width")


def load_photo(augmentation: Augmentation, record: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Faces]:
    """Load one record, a serialized example, as (image, faces with `image_weight`).

    Returns:
        As `Augmentation` returns, and `image_weight` float32 `[]`, 1. If the record is broken, a number of it is not
        finite or its photo can't be decoded: an image of the fill color, no faces, and an `image_weight` of 0.
    """
    # Only what reads the bytes is guarded: an error in the rest is ours, and shall be seen.
    fields, blank = augmentation.fields, {**_blank_photo(), **empty_faces(augmentation.fields)}
    example = _guarded(lambda record: _parse(record, fields), record, blank)
    square = augmentation.choose(example, seed)
    photo = {key: example[key] for key in PHOTO}

    def decode(photo, square):
        return True, *augmentation.cut(photo, square)

    nothing = (False, tf.zeros([1, 1, 3], tf.uint8), tf.constant([0, 0, 1]))
    whole, *piece = _guarded(decode, (photo, square), nothing)  # a blank example has no bytes, so it ends here too
    size = augmentation.image_size

    def empty():
        plain = tf.broadcast_to(tf.constant(augmentation.fill, tf.uint8), [size, size, 3])
        return plain, empty_faces(fields)

    image, faces = tf.cond(whole, lambda: augmentation.finish(piece, example, square, seed), empty)
    return tf.ensure_shape(image, [size, size, 3]), {**faces, "image_weight": tf.cast(whole, tf.float32)}


def load_mosaic(quarter: Augmentation, records: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, Faces]:
    """Load four records as one image, as `load_photo` does; the first one's `image_weight` counts.

    `quarter` makes images of half the side; `seeds` are int64 `[4, 2]`.
    """
    # One function, called four times and not inlined: tracing and optimizing four copies would take seconds.
    part = tf.function(
        lambda record, seed: load_photo(quarter, record, seed),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    parts = [part(records[index], seeds[index]) for index in range(4)]
    weight = parts[0][1]["image_weight"]
    faces = [{key: value for key, value in one.items() if key != "image_weight"} for _, one in parts]
    image, joined = mosaic([image for image, _ in parts], faces, quarter.fields)
    return image, {**joined, "image_weight": weight}


def _guarded(function, argument, instead):
    """function(argument), or `instead` where it fails.

    A graph can't catch an error, but a data set can leave out the element that failed: here one of a single element.
    """
    one = tf.data.Dataset.from_tensors(argument).map(function).ignore_errors()
    return one.concatenate(tf.data.Dataset.from_tensors(instead)).take(1).get_single_element()


def _parse(record: tf.Tensor, fields: Sequence[FaceField]) -> Faces:
    further = [each for each in fields if each.read is not None]
    example = parse_example(record, further)
    count = tf.shape(example["boxes"])[0]
    for each in fields:
        if each.name in example:
            tf.debugging.assert_equal(tf.shape(example[each.name])[0], count)
    # A box that is not finite would have no anchor: its face would be trained as background.
    for name in ("boxes", "landmarks", "scores", "regions"):
        tf.debugging.assert_all_finite(example[name], "not finite")
    for key in ("height", "width"):
        tf.debugging.assert_positive(example[key])
    return {**{key: example[key] for key in PHOTO}, **complete_faces(example, fields)}


def _blank_photo():
    return {"encoded": tf.constant(b""), "height": tf.constant(1), "width": tf.constant(1)}


# The functions of data sets are written in TensorFlow's operations and need no AutoGraph, whose rewriting costs every
# start some seconds.
as_graph = tf.autograph.experimental.do_not_convert


def training_dataset(
    paths: Sequence[Path],
    num_photos: int,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    worker: int = 0,
    num_workers: int = 1,
    max_faces: int | None = None,
    shuffle_buffer: int = 512,
    cycle_length: int = 16,
    augment: bool = True,
    mosaic: float = 0.0,
    parallel_calls: int = tf.data.AUTOTUNE,
    **augmentation: Any,
) -> tf.data.Dataset:
    """An infinite data set of batches; a batch may contain photos of two passes.

    A batch depends on (seed, step) and the options alone: not on where the run started, on parallelism, or on the
    number of workers.

    Args:
        paths: shard paths of `open_shards`, at least one.
        num_photos: photos in them, from the manifest.
        image_size: int, side of the images. Even, with mosaic.
        batch_size: int, photos a step, of all workers together.
        seed: int.
        start_step: int, the step of the first batch.
        worker, num_workers: this worker gets rows `[worker * B / num_workers, (worker + 1) * B / num_workers)` of the
            step. All workers read all records, but parse and decode their own alone.
        max_faces: int; faces are padded to it, and of more the smallest are left out. `None` pads to the most in the
            batch, at least 1.
        shuffle_buffer, cycle_length: see `raw_steps`.
        augment: whether to augment; else `augment.plain`.
        mosaic: probability that an image is made of four photos, of this and the next three of the step.
        parallel_calls: int, photos worked on at the same time.
        **augmentation: keywords of `Augmentation`, or of `plain`.

    Returns:
        `tf.data.Dataset` of (images uint8 `[B, S, S, 3]`, faces: dict of `boxes` float32 `[B, F, 4]`, `xyxy` pixels of
        the images; `landmarks` float32 `[B, F, 5, 2]`; `visible` int32 `[B, F, 5]`; `image_weight` float32 `[B]`).
        `scores` float32 `[B, F]`, 1 for labels by people; `ignored` int32 `[B, F]`, 1 for an ignore region; and the
        further fields, `[B, F, …]`.
        Padding has boxes of zeros and NOT_LABELED landmarks. A record that is broken or can't be decoded keeps its
        place as an image of plain fill color without faces, with `image_weight` 0; all others have 1.

    Raises:
        ValueError: an argument is out of its range or unknown. While iterating, damaged shards raise TensorFlow's
            errors: see `shard_errors`.
    """
    _check(paths, num_photos, batch_size, start_step, worker, num_workers, max_faces)
    for name, value in (("shuffle_buffer", shuffle_buffer), ("cycle_length", cycle_length)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    if not 0 <= mosaic <= 1:
        raise ValueError(f"`mosaic` must be a probability in [0, 1]. Received: mosaic={mosaic}")
    if mosaic and image_size % 2:
        raise ValueError(f"`image_size` must be even with mosaic. Received: image_size={image_size}")
    make = Augmentation if augment else plain
    check_options(make, augmentation)
    single, quarter = make(image_size, **augmentation), make(max(1, image_size // 2), **augmentation)
    rows = batch_size // num_workers
    first = worker * rows

    def own(step, records):
        """Seeds and records of this worker's rows; with mosaic, of their partners too."""
        index = tf.range(first, first + rows)
        partners = (index[:, None] + tf.range(4 if mosaic else 1)) % batch_size
        positions = step * batch_size + tf.cast(index, tf.int64)
        return positions, tf.gather(records, partners)

    def load(position, records):
        example_seed = tf.stack([tf.constant(seed, tf.int64), position])
        if not mosaic:
            return load_photo(single, records[0], example_seed)
        seeds = tf.random.split(example_seed, 5)
        return tf.cond(
            tf.random.stateless_uniform([], seeds[4]) < mosaic,
            lambda: load_mosaic(quarter, records, seeds[:4]),
            lambda: load_photo(single, records[0], example_seed),
        )

    steps = raw_steps(
        paths,
        num_photos,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        shuffle_buffer=shuffle_buffer,
        cycle_length=cycle_length,
    )
    photos = (
        steps.map(as_graph(own)).unbatch().map(as_graph(load), num_parallel_calls=parallel_calls, deterministic=True)
    )
    return padded_batches(photos, image_size, rows, max_faces, fields=single.fields)


def validation_dataset(
    paths: Sequence[Path],
    *,
    image_size: int,
    batch_size: int,
    max_faces: int | None = None,
    parallel_calls: int = tf.data.AUTOTUNE,
    **options: Any,
) -> tf.data.Dataset:
    """Each photo once, in order and whole: batches as `training_dataset` gives, the last one maybe smaller.

    `options` are keywords of `augment.plain`.
    """
    _check(paths, 1, batch_size, 0, 0, 1, max_faces)
    check_options(plain, options)
    as_is, seed = plain(image_size, **options), tf.zeros([2], tf.int64)
    records = tf.data.TFRecordDataset([str(path) for path in paths])
    photos = records.map(as_graph(lambda record: load_photo(as_is, record, seed)), num_parallel_calls=parallel_calls)
    return padded_batches(photos, image_size, batch_size, max_faces, drop_remainder=False, fields=as_is.fields)


@contextmanager
def shard_errors(paths: Sequence[Path]) -> Iterator[None]:
    """Iterate a data set in here: damaged shards become one clear ValueError that names the shard."""
    try:
        yield
    except tf.errors.DataLossError:
        damaged = next((path for path in paths if _is_damaged(path)), "the data")
        raise ValueError(f"{damaged}: a damaged shard: run the same `convert` command again") from None
    except tf.errors.FailedPreconditionError as error:
        if "cardinality" not in error.message and "expected to contain" not in error.message:
            raise
        raise ValueError(
            "the shards don't hold as many photos as their manifest says: run the same `convert` command again"
        ) from None


def _is_damaged(path):
    try:
        for _ in tf.data.TFRecordDataset([str(path)]):
            pass
    except tf.errors.DataLossError:
        return True
    return False


def raw_steps(
    paths: Sequence[Path],
    num_photos: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shuffle_buffer: int = 512,
    cycle_length: int = 16,
) -> tf.data.Dataset:
    """The serialized examples of each step: (step int64 `[]`, records string `[batch_size]`). Nothing is parsed.

    In each pass the shards come in another order, are read `cycle_length` at a time in turn, and their records are
    shuffled within stretches of `shuffle_buffer`. All orders depend on (seed, pass) alone, so a run that starts late
    begins with its own pass and reads, without parsing, less than one pass of what came before. While one stretch is
    used the next is read, across the end of a pass too; a step may have photos of two passes.
    """
    paths = tf.constant([str(path) for path in paths])
    first_pass, offset = divmod(start_step * batch_size, num_photos)

    def stretches(index):
        chosen = tf.stack([tf.constant(seed, tf.int64), index])
        shards = tf.data.Dataset.from_tensor_slices(tf.random.experimental.stateless_shuffle(paths, chosen))
        cycle = min(cycle_length, len(paths))
        records = shards.interleave(
            tf.data.TFRecordDataset, cycle_length=cycle, num_parallel_calls=cycle, deterministic=True
        ).apply(tf.data.experimental.assert_cardinality(num_photos))
        skipped = tf.where(index == first_pass, tf.constant(offset // shuffle_buffer, tf.int64), 0)
        numbered = records.batch(shuffle_buffer).enumerate().skip(skipped)

        def shuffled(number, batch):
            return tf.random.experimental.stateless_shuffle(
                batch, tf.random.experimental.stateless_fold_in(chosen, number)
            )

        return numbered.map(as_graph(shuffled))

    passes = tf.data.Dataset.range(first_pass, tf.int64.max)
    records = passes.flat_map(as_graph(stretches)).prefetch(1).unbatch().skip(offset % shuffle_buffer)
    return records.batch(batch_size, drop_remainder=True).enumerate(start=start_step)


def padded_batches(
    photos: tf.data.Dataset,
    image_size: int,
    batch_size: int,
    max_faces: int | None = None,
    drop_remainder: bool = True,
    *,
    fields: Sequence[FaceField],
) -> tf.data.Dataset:
    """Batch what `load_photo` gives; padding faces have boxes of zeros and NOT_LABELED landmarks.

    With `max_faces` the smallest of more are left out; `None` pads to the fullest photo of the batch, at least 1.
    """
    if max_faces:
        photos = photos.map(as_graph(lambda image, faces: (image, _largest(faces, max_faces))))
    shapes = {each.name: [max_faces, *each.shape] for each in (BOXES, *fields)} | {"image_weight": []}
    values = {each.name: tf.constant(each.padding, each.dtype) for each in (BOXES, *fields)} | {"image_weight": 0.0}
    batches = photos.padded_batch(
        batch_size, ([image_size, image_size, 3], shapes), (tf.constant(0, tf.uint8), values), drop_remainder
    )
    if not max_faces:
        paddings = {each.name: each.padding for each in fields}
        batches = batches.map(as_graph(lambda images, faces: _at_least_one(images, faces, paddings)))
    options = tf.data.Options()
    options.deterministic = True
    # Workers are told apart here; a second split by the strategy would lose photos.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(4).with_options(options)


def _largest(faces, max_faces):
    """The largest faces, in the order they had."""
    sides = faces["boxes"][:, 2:] - faces["boxes"][:, :2]
    order = tf.argsort(sides[:, 0] * sides[:, 1], direction="DESCENDING", stable=True)
    kept = tf.sort(order[:max_faces])
    return {key: value if key == "image_weight" else tf.gather(value, kept) for key, value in faces.items()}


def _at_least_one(images, faces, paddings):
    missing = tf.maximum(1 - tf.shape(faces["boxes"])[1], 0)

    def padded(key, values):
        if key == "image_weight":
            return values
        margins = [[0, 0], [0, missing], *[[0, 0]] * (values.shape.rank - 2)]
        return tf.pad(values, margins, constant_values=paddings.get(key, 0))

    return images, {key: padded(key, values) for key, values in faces.items()}


def _check(paths, num_photos, batch_size, start_step, worker, num_workers, max_faces):
    if not len(paths):
        raise ValueError("`paths` must name at least one shard. Received: none")
    if num_photos < 1:
        raise ValueError(f"`num_photos` must be at least 1. Received: num_photos={num_photos}")
    if start_step < 0:
        raise ValueError(f"`start_step` must be at least 0. Received: start_step={start_step}")
    if num_workers < 1 or batch_size < 1 or batch_size % num_workers:
        given = f"batch_size={batch_size}, num_workers={num_workers}"
        raise ValueError(f"`batch_size` must be a positive multiple of `num_workers`. Received: {given}")
    if not 0 <= worker < num_workers:
        raise ValueError(f"`worker` must be from 0 to num_workers - 1. Received: worker={worker} of {num_workers}")
    if max_faces is not None and max_faces < 1:
        raise ValueError(f"`max_faces` must be at least 1, or None. Received: max_faces={max_faces}")


def check_options(make: Callable[..., Any], given: Iterable[str]) -> None:
    """Raise ValueError, listing what there is, if a name of `given` is no keyword of `Augmentation` or `plain`."""
    names = [name for name, one in inspect.signature(make).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in given:
        if name not in names:
            raise ValueError(f"`{name}` is not an option of `{make.__name__}`. Expected one of {names}")
