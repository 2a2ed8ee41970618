"""One raw record -> one training image; of a damaged record an empty one, which counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from retinaface_tf.data.example import parse_example
from retinaface_tf.data.fields import FaceField, Faces, complete_faces, empty_faces
from retinaface_tf.data.transforms import mosaic

if TYPE_CHECKING:
    from retinaface_tf.data.augment import Augmentation


PHOTO = ("encoded", "height", "width")


def load_photo(augmentation: Augmentation, record: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Faces]:
    """Load one record as (image, faces with `image_weight`).

    Args:
        augmentation: `Augmentation`.
        record: string `[]`, a serialized example.
        seed: int64 `[2]`.

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

    Args:
        quarter: `Augmentation` of half the image's side.
        records: string `[4]`.
        seeds: int64 `[4, 2]`.
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
