"""The close-up pass: run the network once more on a small copy of the photo, for faces that fill the frame.

A face much larger than the largest anchor is missed, or split into several small ones. Of 171 frames that were cut to
the box of the face and enlarged to a long side of 704, 832, 960 and 1,500 pixels, the network alone (anchors up to
512) found 169, 134, 44 and 0; with the close-up pass 170, 171, 171 and 171.
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


REACH = 1.375  # longest face that the network finds reliably, in sides of the largest anchor
FACE_ASPECT = 1.4  # height of a face divided by its width, at most
# Long side of the small copy: an eighth of the photo's, within these pixels; of a photo below `SHRUNK` it is `SIDE`. Of
# 288 faces that fill or leave the frame, 200 to 1,500 pixels long, a quarter (128 to 320 pixels) found no more, and it
# cost 4.5 % of the pixels of 100 web photos in place of 1.2 %.
SHRINK, SMALLEST, LARGEST = 8, 96, 200
SHRUNK, SIDE = 704, 128
MARGIN = 0.25  # border on each side of the copy, as a part of its side: helps where the frame cuts the face
HINT_SCORE, HINT_SIDE = 0.1, 0.3  # lowest score of a hint, and its lowest long side as a part of the short image side
ENCLOSED = 0.8  # part of a box inside a close-up from which on it is a fragment of the close-up


def is_due(
    faces: dict[str, np.ndarray], hints: dict[str, np.ndarray], height: int, width: int, largest_anchor: float
) -> bool:
    """Whether an image, of this height and width as the network saw it, needs the close-up pass.

    It does if a face longer than the network's reach would fit into it, or if no face was found but a large candidate
    scored below the threshold, as happens where the frame cuts a face: `hints` are the faces above `HINT_SCORE`.
    """
    if min(height, FACE_ASPECT * width) > REACH * largest_anchor:
        return True
    sides = (hints["boxes"][:, 2:] - hints["boxes"][:, :2]).max(axis=1, initial=0)
    return len(faces["scores"]) == 0 and bool((sides > HINT_SIDE * min(height, width)).any())


def close_up_view(image: np.ndarray, fill: Sequence[int]) -> Letterbox:
    """The small copy of an image for the close-up pass: shrunk by a whole number, with a border of the color `fill`."""
    longest = max(image.shape[:2])
    side = SIDE if longest < SHRUNK else max(SMALLEST, min(LARGEST, longest / SHRINK))
    factor = max(1, round(longest / side))
    small = np.asarray(Image.fromarray(image).reduce(factor))
    box = letterbox(small, fill, margin=MARGIN)
    return replace(box, scale=box.scale / np.float32(factor))


def merge(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], largest_anchor: float, nms_threshold: float
) -> dict[str, np.ndarray]:
    """Merge the faces of both passes.

    Faces longer than the network's reach are taken from the close-up pass and replace those of the first pass that they
    overlap. All other faces are taken from the first pass. A face of the first pass inside one that is larger than the
    largest anchor and has a higher score is dropped, unless the close-up pass found it too: a real face stays at a
    smaller scale, a cheek that was taken for a face does not.

    Args:
        first, second: dicts of arrays "boxes" `[N, 4]`, "scores" `[N]`, "landmarks" `[N, 5, 2]` and any others
            `[N, ...]`, in the same pixels.

    Returns:
        dict of the same arrays, scores descending.
    """
    if len(first["scores"]) == 0:
        return second
    sides = (second["boxes"][:, 2:] - second["boxes"][:, :2]).max(axis=1, initial=0)
    overlap, part_inside = overlaps(first["boxes"], second["boxes"])  # [first, second]
    beyond, large = sides > REACH * largest_anchor, sides > largest_anchor
    seen_twice = (overlap[:, ~beyond] > nms_threshold).any(axis=1)
    replaced = (overlap[:, beyond] > nms_threshold).any(axis=1)
    # At a low threshold the close-up pass has large boxes with low scores, which must not remove the faces inside.
    enclosed = (part_inside > ENCLOSED) & (first["scores"][:, None] < second["scores"])
    replaced |= enclosed[:, large].any(axis=1) & ~seen_twice
    added = beyond | (large & ~(overlap > nms_threshold).any(axis=0))
    merged = {name: np.concatenate([first[name][~replaced], second[name][added]]) for name in first}
    order = np.argsort(-merged["scores"], kind="stable")
    return {name: array[order] for name, array in merged.items()}


def overlaps(boxes_a, boxes_b):
    """Intersection over union, and over the area of `boxes_a`, of every pair: two arrays `[A, B]`."""
    low = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    high = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=-1)
    areas_a, areas_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (boxes_a, boxes_b))
    union = areas_a[:, None] + areas_b[None] - intersection
    tiny = 1e-9
    return intersection / np.maximum(union, tiny), intersection / np.maximum(areas_a[:, None], tiny)
