"""68 points of one face in a text file, as 300-W has them."""

from pathlib import Path

import numpy as np

from retinaface_tf.common.types import PathLike


def read_pts_file(path: PathLike) -> np.ndarray:
    """All 68 points of one file: float64 `[68, 2]`, pixels counted from 0."""
    text = Path(path).read_text(encoding="utf-8")
    try:
        inside = text[text.index("{") + 1 : text.index("}")]
        points = np.array(inside.split(), np.float64).reshape(68, 2)
    except ValueError as error:
        raise ValueError(f"{path} is not a .pts file of 68 points: {error}") from error
    return points - 1
