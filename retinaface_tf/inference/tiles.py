"""Run photos at other sizes than they have: large ones in tiles, any on the canvas of an artifact of fixed size.

Tiles overlap and limit memory: LiteRT needs 86 bytes per pixel.

Every face up to the network's reach lies in one tile as a whole, with some of its surroundings. Larger ones are found
by the close-up pass, which sees the whole photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retinaface_tf.image.letterbox import Letterbox, fit

WHOLE_PIXELS = 12_600_000  # images up to this are run at once: a photo of 4032x3024 is
TILE_PIXELS = 9_000_000
OVERLAP = 1.5  # of neighbor tiles, in sides of the largest anchor
GRID = 32  # tiles begin where a cell of the coarsest map does
SLACK = 16  # pixels by which a face's center may lie outside a tile's own part: NMS decides between two tiles


def run_tiles(
    run: Callable[[Letterbox], dict[str, np.ndarray]],
    box: Letterbox,
    largest_anchor: float,
    nms_threshold: float,
    max_detections: int,
) -> dict[str, np.ndarray]:
    """The faces of a large canvas: dict of arrays, scores descending, in pixels of the canvas.

    `run` takes the `Letterbox` of a tile and returns its faces, likewise in pixels of the tile.
    """
    height, width = box.canvas.shape[:2]
    parts: list[dict[str, np.ndarray]] = []
    for top, bottom, left, right, own in plan_tiles(height, width, largest_anchor):
        corner = np.array([left, top], np.float32)
        window = np.clip(box.window - np.tile(corner, 2), 0, [right - left, bottom - top] * 2).astype(np.float32)
        tile = Letterbox(
            np.ascontiguousarray(box.canvas[top:bottom, left:right]), window, np.ones(2, np.float32), -corner
        )
        faces = run(tile)
        faces = {**faces, **tile.restore_faces(faces)}
        centers = (faces["boxes"][:, :2] + faces["boxes"][:, 2:]) / 2
        low, high = np.array(own[:2]) - SLACK, np.array(own[2:]) + SLACK
        kept = ((centers >= low) & (centers < high)).all(axis=1)
        parts.append({name: array[kept] for name, array in faces.items()})
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(-merged["scores"], kind="stable")
    merged = {name: array[order] for name, array in merged.items()}
    chosen = _suppress(merged["boxes"], nms_threshold)[:max_detections]
    return {name: array[chosen] for name, array in merged.items()}


def plan_tiles(
    height: int, width: int, largest_anchor: float
) -> list[tuple[int, int, int, int, tuple[float, float, float, float]]]:
    """The tiles of an image: (top, bottom, left, right, own part as x1, y1, x2, y2) of each.

    The own parts cover the image without overlap; those at its edges reach beyond it.
    """
    overlap = math.ceil(OVERLAP * largest_anchor / GRID) * GRID
    rows, columns = 1, 1
    while _side(height, rows, overlap) * _side(width, columns, overlap) > TILE_PIXELS:
        # Cut across the longer side of a tile, unless the overlap would be all that is left of it.
        if _side(height, rows, overlap) >= _side(width, columns, overlap):
            rows += 1
        else:
            columns += 1
    across, down = _spans(width, columns, overlap), _spans(height, rows, overlap)
    return [
        (top, bottom, left, right, (own_left, own_top, own_right, own_bottom))
        for top, bottom, own_top, own_bottom in down
        for left, right, own_left, own_right in across
    ]


def _side(length, count, overlap):
    return length if count == 1 else math.ceil((length + (count - 1) * overlap) / count / GRID) * GRID


def _spans(length, count, overlap):
    """(start, end, own start, own end) of each tile along one axis."""
    side = _side(length, count, overlap)
    starts = [round(i * (length - side) / max(1, count - 1) / GRID) * GRID for i in range(count)]
    ends = [min(length, start + side + GRID) for start in starts]
    ends[-1] = length
    cuts = [-math.inf, *((ends[i] + starts[i + 1]) / 2 for i in range(count - 1)), math.inf]
    return [(starts[i], ends[i], cuts[i], cuts[i + 1]) for i in range(count)]


def _suppress(boxes: np.ndarray, nms_threshold: float) -> Any:
    """Indices of the boxes, sorted by falling score, that overlap no kept one by more."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    alive, kept = np.ones(len(boxes), bool), []
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        kept.append(index)
        low = np.maximum(boxes[index, :2], boxes[:, :2])
        high = np.minimum(boxes[index, 2:], boxes[:, 2:])
        common = np.maximum(high - low, 0).prod(axis=1)
        alive &= common <= nms_threshold * np.maximum(areas[index] + areas - common, 1e-9)
    return np.array(kept, int)


def at_size(
    run: Callable[..., dict[str, np.ndarray]], size: tuple[int, int], fill: Sequence[int]
) -> Callable[..., dict[str, np.ndarray]]:
    """Wrap a function for images of one size, (height, width), so that it takes images of any size.

    Images too large are shrunk to fit, none is enlarged: a photo that fits is seen as it is, and the close-up pass
    from as far away as it is meant to be. Both functions are as `predictor.Runtime.run`, `run` of one image at a time.
    """

    def any_size(images, windows, **thresholds):
        rows = [_one(run, image, window, size, fill, thresholds) for image, window in zip(images, windows, strict=True)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return any_size


def _one(run, image, window, size, fill, thresholds):
    box = fit(image, size, fill)
    window = window.reshape(2, 2) * box.scale + box.offset
    outputs = run(box.canvas[None], window.reshape(1, 4).astype(np.float32), **thresholds)
    outputs = {name: np.asarray(value) for name, value in outputs.items()}
    if (box.scale == 1).all():
        return outputs
    return {**outputs, **box.restore_faces(outputs)}
