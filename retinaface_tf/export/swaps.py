"""Which faces differ only since the suppression chose another of two candidates that score all but the same?

A face has many candidates, and the suppression keeps the one with the highest score. Where the first two score the same
up to rounding, a rounded artifact may keep the second, whose box is a few pixels off though both were computed right.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MEASURED = ("boxes", "scores", "landmarks")


def find_swaps(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], candidates: Callable[[], Any], tolerance: Any
) -> list[tuple[int, dict[str, Any]]]:
    """Pairs of a face that are too far apart, but are two candidates of one face that Python can hardly tell apart.

    Such a pair is a swap if Python, too, has the artifact's face among its candidates, within the tolerance of boxes,
    landmarks and scores, and scores it at most `tolerance.tie` below the face that it kept.

    Args:
        pairs: dict of `MEASURED`, each a tuple (Python's, the artifact's) of arrays with a row a face.
        candidates: function without arguments, called only if a pair is too far apart, to `Detections` of all
            candidates in Python, before the suppression.
        tolerance: `Tolerance` with `pixels`.

    Returns:
        list of (row, dict "score", "candidate_score": Python's of both, "boxes_px", "landmarks_px": how far they are
        apart, "box": Python's).
    """
    apart = {name: _furthest(*pairs[name]) for name in ("boxes", "landmarks")}
    rows = np.flatnonzero(np.maximum(*apart.values()) > tolerance.pixels)
    found = []
    all_of_them: Any = candidates() if len(rows) else ()
    for row in rows:
        kept, wanted = ({name: pairs[name][side][row] for name in MEASURED} for side in (0, 1))
        fits = np.ones(len(all_of_them), np.bool_)
        for name, most in (("boxes", tolerance.pixels), ("landmarks", tolerance.pixels), ("scores", tolerance.score)):
            fits &= _furthest(getattr(all_of_them, name), wanted[name]) <= most
        scores = all_of_them.scores[fits]
        if len(scores) and kept["scores"] - scores.max() <= tolerance.tie:
            swap = {
                "score": round(float(kept["scores"]), 6),
                "candidate_score": round(float(scores.max()), 6),
                "boxes_px": round(float(apart["boxes"][row]), 3),
                "landmarks_px": round(float(apart["landmarks"][row]), 3),
                "box": [round(value, 2) for value in kept["boxes"].tolist()],
            }
            found.append((int(row), swap))
    return found


def _furthest(array, other):
    """Largest difference of a row's numbers: float array, one a row."""
    return np.abs(array - other).max(axis=tuple(range(1, array.ndim)), initial=0)
