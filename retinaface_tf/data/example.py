"""Annotations of a photo to a tf.train.Example, and back.

Field names are those of TensorFlow's object detection standard, with `[0, 1]` coordinates, and ours for faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from retinaface_tf.annotations.annotations import FLAGS, UNKNOWN, Annotations, annotate_photo, join
from retinaface_tf.common.types import NOT_LABELED, PathLike
from retinaface_tf.data.cleaning import PhotoError
from retinaface_tf.data.fields import FaceField, Faces
from retinaface_tf.data.manifest import open_shards

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.data.cleaning import PhotoFile


FACE = 1  # the only class


def to_example(annotations: Annotations, photo: PhotoFile) -> bytes:
    """One photo as the bytes of a tf.train.Example; equal input gives equal bytes. Its annotations are cleaned."""
    size = np.array([photo.width, photo.height], np.float64)
    regions = annotations.boxes[annotations.ignore] / np.tile(size, 2)
    annotations = annotations.select(~annotations.ignore)
    boxes = annotations.boxes / np.tile(size, 2)
    points = (annotations.landmarks / size).reshape(-1, 2)
    feature: dict[str, Any] = {
        "image/encoded": [photo.encoded],
        "image/filename": [annotations.files[0].encode()],
        "image/source_id": [annotations.files[0].encode()],
        "image/format": [photo.format.encode()],
        "image/key/sha256": [photo.sha256.encode()],
        "image/height": [photo.height],
        "image/width": [photo.width],
        "image/orientation": [photo.orientation],
        "image/object/bbox/xmin": boxes[:, 0],
        "image/object/bbox/ymin": boxes[:, 1],
        "image/object/bbox/xmax": boxes[:, 2],
        "image/object/bbox/ymax": boxes[:, 3],
        "image/object/class/label": [FACE] * annotations.num_faces,
        "image/object/class/text": [b"face"] * annotations.num_faces,
        "image/object/landmark/x": points[:, 0],
        "image/object/landmark/y": points[:, 1],
        "image/object/landmark/visible": annotations.visible.ravel(),
        "image/object/blur_score": annotations.blur_score,
        **{f"image/object/{flag}": annotations.flags[:, index] for index, flag in enumerate(FLAGS)},
    }
    if not (annotations.scores == 1).all():
        feature["image/object/score"] = annotations.scores
    if len(regions):
        feature |= {f"image/ignore/bbox/{side}": regions[:, index] for index, side in enumerate(SIDES)}
    message = tf.train.Example()
    for name, values in feature.items():
        slot = message.features.feature[name]
        if name in FLOATS:
            slot.float_list.value.extend(np.asarray(values, np.float32).tolist())
        elif name in STRINGS:
            slot.bytes_list.value.extend(values)
        else:
            slot.int64_list.value.extend(int(value) for value in values)
    # The features are a map, in any order unless asked otherwise.
    return message.SerializeToString(deterministic=True)


SIDES = ("xmin", "ymin", "xmax", "ymax")
FLOATS = {
    *(f"image/{what}/bbox/{side}" for what in ("object", "ignore") for side in SIDES),
    "image/object/score",
    "image/object/landmark/x",
    "image/object/landmark/y",
    "image/object/blur_score",
}
STRINGS = {
    "image/encoded",
    "image/filename",
    "image/source_id",
    "image/format",
    "image/key/sha256",
    "image/object/class/text",
}
ONE_EACH = ("image/encoded", "image/filename", "image/format", "image/key/sha256")
SIZES = ("image/height", "image/width", "image/orientation")


def parse_example(serialized: tf.Tensor, fields: Sequence[FaceField] = ()) -> Faces:
    """The contents of one example, in eager mode or in `tf.data`.

    Args:
        serialized: string tensor `[]`.
        fields: Further per-face fields to read, such as those of a dense branch; see `fields.py`.

    Returns:
        Dict of tensors: `encoded`, `filename`, `format`, `sha256` string `[]`; `height`, `width`, `orientation` int32
        `[]`; `boxes` float32 `[N, 4]`, `xyxy` pixels of the stored photo; `landmarks` float32 `[N, 5, 2]`, likewise, 0
        where not labeled; `visible` int32 `[N, 5]`: NOT_LABELED, OCCLUDED or VISIBLE; `blur_score` and `scores` float32
        `[N]`; each of `FLAGS`, int32 `[N]`; ignore `regions` float32 `[M, 4]`; the further fields. N and M may be 0.

    Raises:
        tf.errors.InvalidArgumentError: not an example, or not one of ours.
    """
    one = {name: tf.io.FixedLenFeature([], tf.string) for name in ONE_EACH}
    one |= {name: tf.io.FixedLenFeature([], tf.int64) for name in SIZES}
    floats = {name: _list_of(tf.float32) for name in sorted(FLOATS)}
    flags = {f"image/object/{flag}": _list_of(tf.int64) for flag in FLAGS}
    visible = {"image/object/landmark/visible": _list_of(tf.int64)}
    further = {name: feature for each in fields for name, feature in each.features.items()}
    raw = tf.io.parse_single_example(serialized, {**one, **floats, **flags, **visible, **further})
    raw = {name.removeprefix("image/"): value for name, value in raw.items()}
    size = tf.cast(tf.stack([raw["width"], raw["height"]]), tf.float32)
    corners, regions = ([raw[f"{what}/bbox/{side}"] for side in SIDES] for what in ("object", "ignore"))
    points = tf.stack([raw["object/landmark/x"], raw["object/landmark/y"]], axis=-1)
    faces = tf.shape(raw["object/bbox/xmin"])[0]
    # Shards of labels by people alone have no scores.
    scores = tf.concat([raw["object/score"], tf.ones([faces - tf.size(raw["object/score"])])], axis=0)
    return {
        **{each.name: each.read(raw, faces, size) for each in fields if each.read is not None},
        "encoded": raw["encoded"],
        "filename": raw["filename"],
        "format": raw["format"],
        "sha256": raw["key/sha256"],
        **{key: tf.cast(raw[key], tf.int32) for key in ("height", "width", "orientation")},
        "boxes": tf.stack(corners, axis=-1) * tf.tile(size, [2]),
        "landmarks": tf.reshape(points * size, [-1, 5, 2]),
        "visible": tf.cast(tf.reshape(raw["object/landmark/visible"], [-1, 5]), tf.int32),
        "blur_score": raw["object/blur_score"],
        "scores": scores,
        "regions": tf.stack(regions, axis=-1) * tf.tile(size, [2]),
        **{flag: tf.cast(raw[f"object/{flag}"], tf.int32) for flag in FLAGS},
    }


def _list_of(dtype):
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


def decode_photo(encoded: tf.Tensor) -> tf.Tensor:
    """The stored pixels: string tensor `[]` -> uint8 `[H, W, 3]`, RGB.

    EXIF orientation is not applied, so that `boxes` of `parse_example` fit. Of an animation the first picture.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def check_decodes(photo: PhotoFile) -> None:
    """Raise PhotoError("corrupt_photo") for a photo whose pixels training could not decode.

    It is training's own decoder that is asked: of damaged JPEGs Pillow accepts some that it refuses.
    """
    try:
        if photo.format == "jpeg":
            # At an eighth of the size: all bytes are read, and damage shows in the Huffman codes all the same, but most
            # of the arithmetic is spared.
            tf.io.decode_jpeg(photo.encoded, channels=3, ratio=8)
        else:
            decode_photo(photo.encoded)
    except tf.errors.OpError as error:
        reason = " ".join(error.message.split()).split(" [Op")[0][:100]
        raise PhotoError("corrupt_photo", f"can't be decoded ({reason})") from None


def read_shards(folders: Sequence[PathLike]) -> tuple[Annotations, dict[str, bytes]]:
    """The annotations of shards, and their photos as files that can be decoded.

    Returns:
        (`Annotations` with the subset "all", the faces not flagged as invalid; dict name -> encoded photo). Photos that
        can't be parsed are left out.

    Raises:
        ValueError: A folder holds no finished shards, or none of the photos can be read.
        OSError: A shard can't be read.
    """
    import tensorflow as tf

    from retinaface_tf.data.pipeline import shard_errors

    parts, encoded = [], []
    for folder in folders:
        _, paths = open_shards(folder)
        with shard_errors(paths):
            for serialized in tf.data.TFRecordDataset([str(path) for path in paths]):
                try:
                    one = {key: value.numpy() for key, value in parse_example(serialized).items()}
                    parts.append(_annotations_of(one))
                except (tf.errors.InvalidArgumentError, ValueError):  # TensorFlow's own message may be no UTF-8
                    continue  # as training leaves it out
                encoded.append(one["encoded"])
    if not parts:
        raise ValueError(f"{', '.join(map(str, folders))}: no photo that can be read")
    annotations = join(parts)
    valid = annotations.flags[:, FLAGS.index("invalid")] != 1
    annotations = annotations.replace(subsets={"all": valid & ~annotations.ignore})
    return annotations, dict(zip(annotations.names, encoded, strict=True))


def _annotations_of(example):
    """`Annotations` of one photo from what `parse_example` returns; ignore regions come after the faces."""
    regions = len(example["regions"])
    boxes = np.concatenate([example["boxes"], example["regions"]])
    if not all(np.isfinite(values).all() for values in (boxes, example["landmarks"], example["scores"])):
        raise ValueError("labels that are not finite")
    if example["width"] < 0 or example["height"] < 0:
        raise ValueError("a size below 0")

    def padded(values, fill):
        return np.concatenate([values, np.full((regions, *values.shape[1:]), fill, values.dtype)])

    return annotate_photo(
        example["filename"].decode("utf-8", "backslashreplace"),
        boxes,
        landmarks=padded(example["landmarks"], 0),
        visible=padded(example["visible"], NOT_LABELED),
        flags=padded(np.stack([example[flag] for flag in FLAGS], axis=-1), UNKNOWN),
        blur_score=padded(example["blur_score"], UNKNOWN),
        scores=padded(example["scores"], 1),
        ignore=np.arange(len(boxes)) >= len(example["boxes"]),
        size=(int(example["width"]), int(example["height"])),
    )
