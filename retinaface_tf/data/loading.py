"""One raw record -> one training image; of a damaged record an empty one, which counts for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from retinaface_tf.data.example import parse_example
from retinaface_tf.data.mosaic import mosaic
from retinaface_tf.dense.vertices import VERTICES, without_labels

if TYPE_CHECKING:
    from retinaface_tf.data.augment import Augmentation


PHOTO = ("encoded", "height", "width")


def load_photo(
    augmentation: Augmentation, record: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """One record to (image, faces with `image_weight`).

    Args:
        augmentation: `Augmentation`.
        record: string `[]`, a serialized example.
        seed: int64 `[2]`.

    Returns:
        As `Augmentation` gives, and `image_weight` float32 `[]`, 1. If the record is broken or its photo can't be
        decoded: an image of the fill colour, no faces, and an `image_weight` of 0.
    """
    # Only what reads the bytes is guarded: an error in the rest is ours, and shall be seen.
    num_vertices = len(augmentation.vertex_mirror or ())
    used, blank = (*PHOTO, *augmentation.faces), _blank_example(num_vertices)
    example = _guarded(lambda record: _parse(record, used, num_vertices), record, blank)
    square = augmentation.choose(example, seed)
    photo = {key: example[key] for key in PHOTO}

    def decode(photo, square):
        return True, *augmentation.cut(photo, square)

    nothing = (False, tf.zeros([1, 1, 3], tf.uint8), tf.constant([0, 0, 1]))
    whole, *piece = _guarded(decode, (photo, square), nothing)  # a blank example has no bytes, so it ends here too
    size = augmentation.image_size

    def empty():
        plain = tf.broadcast_to(tf.constant(augmentation.fill, tf.uint8), [size, size, 3])
        return plain, {key: blank[key] for key in augmentation.faces}

    image, faces = tf.cond(whole, lambda: augmentation.finish(piece, example, square, seed), empty)
    return tf.ensure_shape(image, [size, size, 3]), {**faces, "image_weight": tf.cast(whole, tf.float32)}


def load_mosaic(quarter: Augmentation, records: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Four records to one image, as `load_photo` gives it; the first one's `image_weight` counts.

    Args:
        quarter: `Augmentation` of half the image's side.
        records: string `[4]`.
        seeds: int64 `[4, 2]`.
    """
    # One function, called four times and not inlined: tracing and optimising four copies would take seconds.
    part = tf.function(
        lambda record, seed: load_photo(quarter, record, seed),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    parts = [part(records[index], seeds[index]) for index in range(4)]
    image, faces = mosaic([image for image, _ in parts], [{key: one[key] for key in quarter.faces} for _, one in parts])
    return image, {**faces, "image_weight": parts[0][1]["image_weight"]}


def _guarded(function, argument, instead):
    """function(argument), or `instead` where it fails.

    A graph can't catch an error, but a data set can leave out the element that failed: here one of a single element.
    """
    one = tf.data.Dataset.from_tensors(argument).map(function).ignore_errors()
    return one.concatenate(tf.data.Dataset.from_tensors(instead)).take(1).get_single_element()


def _parse(record, used, num_vertices):
    example = parse_example(record, num_vertices)
    faces = tf.shape(example["boxes"])[0]
    for key in ("landmarks", "visible", *(VERTICES if num_vertices else ())):
        tf.debugging.assert_equal(tf.shape(example[key])[0], faces)
    for key in ("height", "width"):
        tf.debugging.assert_positive(example[key])
    return {key: example[key] for key in used}


def _blank_example(num_vertices):
    return {
        **(without_labels(num_vertices) if num_vertices else {}),
        "encoded": tf.constant(b""),
        "height": tf.constant(1),
        "width": tf.constant(1),
        "boxes": tf.zeros([0, 4]),
        "landmarks": tf.zeros([0, 5, 2]),
        "visible": tf.zeros([0, 5], tf.int32),
    }
