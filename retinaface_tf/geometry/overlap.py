"""IoU of boxes in NumPy, for published numbers."""

import numpy as np


def pairwise_iou(boxes_a: np.ndarray, boxes_b: np.ndarray, *, plus_one: bool = False) -> np.ndarray:
    """Intersection over union of every pair.

    Args:
        boxes_a: Float array `[A, 4]`, `xyxy` pixels. `A` may be 0.
        boxes_b: Float array `[B, 4]`, likewise.
        plus_one: Whether a box from x1 to x2 is `x2 - x1 + 1` pixels wide, as in the WIDER FACE and the first PASCAL
            VOC tools. A zero-area box then has the area of one pixel.

    Returns:
        Float64 array `[A, B]` in `[0, 1]`; 0 where the boxes do not touch, and where both have no area.
    """
    boxes_a = np.asarray(boxes_a, np.float64).reshape(-1, 4)
    boxes_b = np.asarray(boxes_b, np.float64).reshape(-1, 4)
    one = 1.0 if plus_one else 0.0
    # Coordinate by coordinate: a [A, B, 2] intermediate is slower than its two halves.
    width = np.minimum(boxes_a[:, None, 2], boxes_b[:, 2]) - np.maximum(boxes_a[:, None, 0], boxes_b[:, 0]) + one
    height = np.minimum(boxes_a[:, None, 3], boxes_b[:, 3]) - np.maximum(boxes_a[:, None, 1], boxes_b[:, 1]) + one
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    union = _area(boxes_a, one)[:, None] + _area(boxes_b, one) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes, one):
    return (boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one)
