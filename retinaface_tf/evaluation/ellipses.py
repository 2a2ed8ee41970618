"""FDDB marks heads with ellipses, detectors answer with boxes: overlap of the two, and boxes from ellipses.

An ellipse is long radius, short radius, angle, centre x, centre y. Its long axis points to (cos angle, sin angle), y
downwards.
"""

import numpy as np

from retinaface_tf.geometry.overlap import pairwise_iou

CONVERSIONS = ("tight", "upright")


def ellipses_to_boxes(ellipses: np.ndarray, conversion: str = "tight") -> np.ndarray:
    """Boxes that stand for ellipses.

    Args:
        ellipses: Float array `[G, 5]`.
        conversion: `tight`, the smallest box around the turned ellipse; or `upright`, the box of the ellipse turned
            until its long axis is vertical, as several training lists made from FDDB have it.

    Returns:
        Float64 `[G, 4]`, `xyxy` pixels.
    """
    long, short, angle, x, y = np.asarray(ellipses, np.float64).reshape(-1, 5).T
    if conversion == "tight":
        half_width = np.hypot(long * np.cos(angle), short * np.sin(angle))
        half_height = np.hypot(long * np.sin(angle), short * np.cos(angle))
    elif conversion == "upright":
        half_width, half_height = short, long
    else:
        raise ValueError(f"`conversion` must be one of {list(CONVERSIONS)}. Received: conversion={conversion!r}")
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def ellipse_iou(ellipses: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """Intersection over union by counting pixels, as the official tool does on drawn masks.

    Like there, centres are rounded, radii and box corners cut to integers, and both ends of a box are inside it.

    Args:
        ellipses: Float array `[G, 5]`.
        boxes: Float array `[N, 4]`, `xyxy` pixels.
        image_size: `(height, width)` to count only pixels inside the photo, or None for an endless one. The official
            tool draws into the photo, so that what a detection covers outside costs nothing.

    Returns:
        Float64 `[G, N]`.
    """
    ellipses = np.asarray(ellipses, np.float64).reshape(-1, 5)
    boxes = np.trunc(np.asarray(boxes, np.float64).reshape(-1, 4)).astype(np.int64)
    limits = [-(2**31), 2**31, -(2**31), 2**31] if image_size is None else [0, image_size[1], 0, image_size[0]]
    columns = np.clip(np.stack([boxes[:, 0], boxes[:, 2] + 1]), limits[0], limits[1])
    rows = np.clip(np.stack([boxes[:, 1], boxes[:, 3] + 1]), limits[2], limits[3])
    areas = np.maximum(columns[1] - columns[0], 0) * np.maximum(rows[1] - rows[0], 0)
    iou = np.zeros((len(ellipses), len(boxes)))
    for index, ellipse in enumerate(ellipses):
        mask, left, top = _mask(ellipse, limits)
        # Inclusive sums of the mask give the pixels inside any box in four look-ups.
        total = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        x1, x2 = np.clip(columns - left, 0, mask.shape[1])
        y1, y2 = np.clip(rows - top, 0, mask.shape[0])
        shared = np.where(areas > 0, total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1], 0)
        union = areas + total[-1, -1] - shared
        iou[index] = np.divide(shared, union, out=np.zeros(len(boxes)), where=union > 0)
    return iou


def overlap(
    ellipses: np.ndarray, boxes: np.ndarray, kind: str = "ellipse", image_size: tuple[int, int] | None = None
) -> np.ndarray:
    """IoU `[G, N]` with the ellipse itself (`ellipse`, official) or with a box made of it (`tight`, `upright`)."""
    if kind == "ellipse":
        return ellipse_iou(ellipses, boxes, image_size)
    return pairwise_iou(ellipses_to_boxes(ellipses, kind), boxes)


def _mask(ellipse, limits):
    """Bool `[h, w]` of the pixels inside one ellipse and the limits, and its left and top."""
    long, short = max(1, int(ellipse[0])), max(1, int(ellipse[1]))
    x, y = (int(np.floor(value + 0.5)) for value in ellipse[3:])
    reach = max(long, short) + 1
    columns = np.arange(max(x - reach, limits[0]), max(min(x + reach + 1, limits[1]), max(x - reach, limits[0])))
    rows = np.arange(max(y - reach, limits[2]), max(min(y + reach + 1, limits[3]), max(y - reach, limits[2])))
    cos, sin = np.cos(ellipse[2]), np.sin(ellipse[2])
    dx, dy = (columns - x)[None, :], (rows - y)[:, None]
    inside = ((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2 <= 1
    left, top = (int(axis[0]) if axis.size else 0 for axis in (columns, rows))
    return inside, left, top
