"""Shards -> the raw records of each training step, endless, and the same from any step on."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from retinaface_tf.data.graph import as_graph


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
    """The serialized examples of each step; nothing is parsed or decoded.

    In each pass the shards come in another order, are read `cycle_length` at a time in turn, and their records are
    shuffled within stretches of `shuffle_buffer`. All orders depend on (seed, pass) alone, so a run that starts late
    begins with its own pass and reads, without parsing, less than one pass of what came before. While one stretch is
    used the next is read, across the end of a pass too; a step may have photos of two passes.

    Args:
        paths: shard paths, at least one.
        num_photos: records in them in all.
        batch_size: int, photos a step, of all workers together.
        seed: int.
        start_step: int, of the first element.
        shuffle_buffer: int.
        cycle_length: int.

    Returns:
        `tf.data.Dataset` of (step int64 `[]`, records string `[batch_size]`).
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
