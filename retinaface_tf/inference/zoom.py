"""The zoom pass: run the network once more on enlarged parts of the photo, for small faces.

The same weights find far more small faces in an enlarged photo, but that costs time everywhere. So only parts around
small faces are enlarged, where the scores of the first pass are uncertain, and put side by side on a canvas.
AutoFocus (Najibi et al., arXiv 1812.01600) trains a branch to choose such parts; here the scores of the first pass do.
docs/notes/detect.md has the measurements behind the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from retinaface_tf.image.letterbox import Letterbox
from retinaface_tf.inference.close_up import overlaps

SMALL = 64  # largest size of a small face: square root of its area, in pixels of the first pass
HINT_SCORE, SURE_SCORE = 0.2, 0.9  # between these scores of the first pass, a small face is uncertain
MARGIN, CELL = 20, 8  # pixels around a face that belong to its part; parts begin and end at multiples of `CELL`
LONG_SIDE = 1536  # pixels that the long side of the photo would get
MAX_SCALE, MIN_SCALE = 2.0, 1.05  # largest scale; below the smallest, nothing is enlarged
GAP = 8  # pixels between two parts on the canvas
STEP = 32  # sides of the canvas are multiples of this
EDGE = 2  # pixels of the canvas: a face nearer to the edge of its part may be cut
INSIDE = 4  # pixels by which a face of the first pass must lie inside a part to be replaced
REPLACED = 0.8 * SMALL  # largest size of such a face

Faces = dict[str, np.ndarray]


def zoom_scale(height: int, width: int) -> float | None:
    """By how much parts of an image of this size are enlarged: float, or `None` if the image is large enough."""
    scale = min(MAX_SCALE, LONG_SIDE / max(height, width))
    return scale if scale >= MIN_SCALE else None


def find_parts(hints: Faces, height: int, width: int) -> np.ndarray:
    """The parts of an image that hold uncertain small faces.

    Args:
        hints: dict with "boxes" `[N, 4]` and "scores" `[N]`, with all faces above `HINT_SCORE`.
        height, width: of the image, pixels.

    Returns:
        int array `[P, 4]`, `xyxy` pixels; the parts do not overlap.
    """
    boxes, scores = hints["boxes"], hints["scores"]
    chosen = boxes[(scores >= HINT_SCORE) & (scores < SURE_SCORE) & (_sizes(boxes) <= SMALL)].astype(np.float64)
    low, high = np.floor((chosen[:, :2] - MARGIN) / CELL), np.ceil((chosen[:, 2:] + MARGIN) / CELL)
    parts = np.clip(np.concatenate([low, high], axis=1) * CELL, 0, [width, height] * 2).astype(int)
    count = None
    while count != len(parts):  # a part that has grown may overlap one that was finished before
        count, rest, parts = len(parts), parts, np.zeros((0, 4), int)
        while len(rest):
            part, rest = _join_first(rest)
            parts = np.concatenate([parts, part])
    return parts


def _join_first(parts):
    """Join the first rectangle with all that it overlaps, again and again: the result, and the rectangles left."""
    one, rest = parts[:1], parts[1:]
    while (near := ((rest[:, :2] < one[0, 2:]) & (rest[:, 2:] > one[0, :2])).all(axis=1)).any():
        joined = np.concatenate([one, rest[near]])
        one, rest = np.concatenate([joined[:, :2].min(axis=0), joined[:, 2:].max(axis=0)])[None], rest[~near]
    return one, rest


def zoom_views(image: np.ndarray, parts: np.ndarray, scale: float, fill: Sequence[int]) -> list[Letterbox]:
    """The parts of an image, enlarged and put side by side on one canvas.

    Args:
        image: uint8 array `[H, W, 3]`.
        parts: int array `[P, 4]`, see `find_parts`; at least one.
        scale: float, see `zoom_scale`.
        fill: three ints, the color between the parts.

    Returns:
        A `Letterbox` for each part; its `window` is the part's place on the canvas, which is as large as needed.
    """
    sizes = np.maximum(1, np.round((parts[:, 2:] - parts[:, :2]) * scale)).astype(int)  # width and height
    order = np.argsort(-sizes[:, 1], kind="stable")
    parts, sizes = parts[order], sizes[order]
    widths = sizes[:, 0].max() + np.arange(4) * math.isqrt(sizes.prod(axis=1).sum()) // 3
    packed = [_pack(sizes, math.ceil(width / STEP) * STEP) for width in widths]
    places, size = min(packed, key=lambda each: each[1][0] * each[1][1])
    canvas = np.full((*size, 3), np.asarray(fill, np.uint8))
    views = []
    for part, (width, height), (left, top) in zip(parts, sizes.tolist(), places, strict=True):
        pixels = Image.fromarray(image[part[1] : part[3], part[0] : part[2]])
        canvas[top : top + height, left : left + width] = pixels.resize((width, height), Image.Resampling.BILINEAR)
        exact = (np.array([width, height]) / (part[2:] - part[:2])).astype(np.float32)
        window = np.array([left, top, left + width, top + height], np.float32)
        views.append(Letterbox(canvas, window, exact, window[:2] - part[:2].astype(np.float32) * exact))
    return views


def zoom(
    run: Callable[[list[Letterbox]], list[Faces]],
    image: np.ndarray,
    faces: Faces,
    hints: Faces,
    fill: Sequence[int],
    nms_threshold: float,
) -> Faces:
    """Replace small faces by those that the enlarged parts show. Certain faces stay if a part does not show them.

    Args:
        run: function of a list of `Letterbox` that returns the faces on each canvas.
        image: uint8 array `[H, W, 3]`, as the first pass saw it.
        faces, hints: dicts of arrays "boxes" `[N, 4]`, "scores" `[N]`, "landmarks" `[N, 5, 2]` and any others
            `[N, ...]`: the faces of the first pass, and all above `HINT_SCORE` or a lower score.
        fill: three ints, the color between the parts.

    Returns:
        dict of the same arrays, scores descending; `faces` itself where nothing is uncertain.
    """
    height, width = image.shape[:2]
    scale = zoom_scale(height, width)
    if scale is None or not len(parts := find_parts(hints, height, width)):
        return faces
    views = zoom_views(image, parts, scale, fill)
    canvas = views[0].canvas
    whole = np.array([0, 0, canvas.shape[1], canvas.shape[0]], np.float32)
    on_canvas = run([Letterbox(canvas, whole, np.ones(2, np.float32), np.zeros(2, np.float32))])[0]
    centers = (on_canvas["boxes"][:, :2] + on_canvas["boxes"][:, 2:]) / 2
    replaced = np.zeros(len(faces["scores"]), bool)
    found = []
    for view in views:
        here = ((centers >= view.window[:2]) & (centers < view.window[2:])).all(axis=1)
        own = {name: array[here] for name, array in on_canvas.items()}
        own |= view.restore_faces(own)
        part = view.restore(view.window.reshape(2, 2)).reshape(4)
        kept = (_sizes(own["boxes"]) <= SMALL) & _inside(own["boxes"], part, EDGE / scale, width, height)
        found.append({name: array[kept] for name, array in own.items()})
        replaced |= _inside(faces["boxes"], part, INSIDE, width, height)
    second = {name: np.concatenate([each[name] for each in found]) for name in faces}
    same = overlaps(faces["boxes"], second["boxes"])[0] > nms_threshold
    replaced &= (_sizes(faces["boxes"]) <= REPLACED) & (same.any(axis=1) | (faces["scores"] < SURE_SCORE))
    # NMS between the passes; within each of them it is done.
    first, same = {name: array[~replaced] for name, array in faces.items()}, same[~replaced]
    lower = first["scores"][:, None] < second["scores"]
    kept = [~(same & lower).any(axis=1), ~(same & ~lower).any(axis=0)]
    merged = {name: np.concatenate([first[name][kept[0]], second[name][kept[1]]]) for name in faces}
    order = np.argsort(-merged["scores"], kind="stable")
    return {name: array[order] for name, array in merged.items()}


def _sizes(boxes):
    """Square roots of the areas."""
    return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _inside(boxes, part, margin, width, height):
    """Bool `[N]`: boxes inside a part, by a margin. An edge that is also an edge of the image cuts no box."""
    low = np.where(part[:2] <= 0, -np.inf, part[:2] + margin)
    high = np.where(part[2:] >= [width, height], np.inf, part[2:] - margin)
    return ((boxes[:, :2] >= low) & (boxes[:, 2:] <= high)).all(axis=1)


def _pack(sizes, width):
    """Place rectangles, sorted by height, in rows: a list of (left, top), and the (height, width) that they need."""
    places, left, top, row = [], 0, 0, 0
    for w, h in sizes.tolist():
        if left + w > width:
            left, top, row = 0, top + row + GAP, 0
        places.append((left, top))
        left, row = left + w + GAP, max(row, h)
    return places, (math.ceil((top + row) / STEP) * STEP, width)
