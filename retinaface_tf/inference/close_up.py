"""Faces that fill the frame: a second look from further away, where the first can't see the whole face.

A face much larger than the largest anchor is missed, or taken for several small ones: of 171 frames cut to the face's
box and enlarged until its long side was 704, 832, 960 and 1,500 pixels, the network alone (anchors up to 512) found
169, 134, 44 and none, and with a second look 170 and then all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retinaface_tf.image.letterbox import letterbox

if TYPE_CHECKING:
    from retinaface_tf.image.letterbox import Letterbox


REACH = 1.375  # the longest face that is reliably seen, in sides of the largest anchor
FACE_ASPECT = 1.4  # a face is at most so many times as high as wide
SHRINK, LARGEST, SMALLEST = 4, 320, 128  # the second look's long side: a quarter of the first's, within these pixels
MARGIN = 0.25  # border on each side of it: helps where the frame cuts the face
HINT_SCORE, HINT_SIDE = 0.1, 0.3  # a candidate so likely, and so long beside the short side, hints at a cut face
ENCLOSED = 0.8  # a part of a face's box so large inside a close-up makes it a fragment of that


def is_due(
    faces: dict[str, np.ndarray], hints: dict[str, np.ndarray], height: int, width: int, largest_anchor: float
) -> bool:
    """Whether an image wants a second look.

    It does if a face longer than the network's reach would fit into it, or if no face was found but something large
    was nearly taken for one, as happens where the frame cuts a face.

    Args:
        faces: dict of arrays, what was found over the score threshold.
        hints: the same, over `HINT_SCORE`.
        height, width: int, pixels of the image as the network saw it.
        largest_anchor: float, pixels.
    """
    if min(height, FACE_ASPECT * width) > REACH * largest_anchor:
        return True
    sides = (hints["boxes"][:, 2:] - hints["boxes"][:, :2]).max(axis=1, initial=0)
    return len(faces["scores"]) == 0 and bool((sides > HINT_SIDE * min(height, width)).any())


def second_look(image: np.ndarray, fill: Sequence[int]) -> Letterbox:
    """The image shrunk by a whole number, with a border.

    Args:
        image: uint8 array `[H, W, 3]`, as the network saw it first.
        fill: three ints, the colour of the border.

    Returns:
        `Letterbox`, which restores to pixels of `image`.
    """
    longest = max(image.shape[:2])
    side = max(SMALLEST, min(LARGEST, longest / SHRINK))
    factor = max(1, round(longest / side))
    small = np.asarray(Image.fromarray(image).reduce(factor))
    box = letterbox(small, fill, margin=MARGIN)
    return replace(box, scale=box.scale / np.float32(factor))


def merge(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], largest_anchor: float, nms_threshold: float
) -> dict[str, np.ndarray]:
    """The faces of both looks, as one set.

    Beyond the network's reach the second look decides: its faces replace those of the first that overlap them. Up to
    there the first look decides. What the first look found inside a face larger than the largest anchor goes, unless
    the second look sees it too: a real face does not vanish from further away, a cheek taken for one does.

    Args:
        first, second: dicts of arrays "boxes" `[N, 4]`, "scores" `[N]`, "landmarks" `[N, 5, 2]` and any others
            `[N, ...]`, in the same pixels.
        largest_anchor: float, pixels.
        nms_threshold: float.

    Returns:
        dict of the same arrays, scores descending.
    """
    if len(first["scores"]) == 0:
        return second
    sides = (second["boxes"][:, 2:] - second["boxes"][:, :2]).max(axis=1, initial=0)
    overlap, part_inside = _overlaps(first["boxes"], second["boxes"])  # [first, second]
    beyond, large = sides > REACH * largest_anchor, sides > largest_anchor
    seen_twice = (overlap[:, ~beyond] > nms_threshold).any(axis=1)
    replaced = (overlap[:, beyond] > nms_threshold).any(axis=1)
    replaced |= (part_inside[:, large] > ENCLOSED).any(axis=1) & ~seen_twice
    added = beyond | (large & ~(overlap > nms_threshold).any(axis=0))
    merged = {name: np.concatenate([first[name][~replaced], second[name][added]]) for name in first}
    order = np.argsort(-merged["scores"], kind="stable")
    return {name: array[order] for name, array in merged.items()}


def _overlaps(boxes_a, boxes_b):
    """Intersection over union, and over the area of `boxes_a`, of every pair: two arrays `[A, B]`."""
    low = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    high = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=-1)
    areas_a, areas_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (boxes_a, boxes_b))
    union = areas_a[:, None] + areas_b[None] - intersection
    tiny = 1e-9
    return intersection / np.maximum(union, tiny), intersection / np.maximum(areas_a[:, None], tiny)
