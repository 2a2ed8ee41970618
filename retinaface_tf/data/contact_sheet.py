"""Photos of shards for a contact sheet, before and after augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinaface_tf.annotations.annotations import FLAGS

if TYPE_CHECKING:
    from retinaface_tf.data.augment import Augmentation


def read_photos(paths: Sequence[Path], count: int, total: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Some photos of shards, drawn by lot, as `contact_sheet` takes them.

    Args:
        paths: list of shard `Path`.
        count: how many; all if there are fewer.
        total: photos to draw from: all in the shards, from the manifest, or the first so many.
        seed: of the lot.

    Returns:
        list of dicts. Photos that can't be parsed or decoded are left out.
    """
    import tensorflow as tf

    from retinaface_tf.data.example import decode_photo, parse_example

    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    dataset = tf.data.TFRecordDataset([str(path) for path in paths]).enumerate().take(int(chosen.max(initial=-1)) + 1)
    dataset = dataset.filter(lambda index, _: tf.reduce_any(index == chosen))
    examples = []
    for _, serialized in dataset:
        try:
            one = {key: value.numpy() for key, value in parse_example(serialized).items()}
            image = decode_photo(one["encoded"]).numpy()
        except tf.errors.InvalidArgumentError:
            continue  # as training leaves it out
        name, faces = one["filename"].decode(), len(one["boxes"])
        caption = f"{name.rsplit('/')[-1]}: {faces} face{'' if faces == 1 else 's'}"
        labels = {key: one[key] for key in ("boxes", "landmarks", "visible", *FLAGS)}
        examples.append({"image": image, "caption": caption, **labels})
    return examples


def before_and_after(
    examples: Sequence[dict[str, Any]], augmentation: Augmentation, seed: int = 0
) -> list[dict[str, Any]]:
    """Each photo twice, for a sheet with an even number of columns: as it is, and augmented.

    Args:
        examples: list of dicts, of `read_photos`.
        augmentation: `Augmentation`.
        seed: int.
    """
    pairs = []
    for index, one in enumerate(examples):
        image, faces = augmentation(one, np.array([seed, index], np.int64))
        faces = {key: value.numpy() for key, value in faces.items()}
        caption = f"augmented, {len(faces['boxes'])} left"
        pairs += [one, {"image": image.numpy(), "caption": caption, **faces}]
    return pairs
