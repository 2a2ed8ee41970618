"""FDDB's text files: ten folds of ellipses in, one list of detections in or out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.detection_files import NOTHING, ImageDetections

NUM_FOLDS = 10


def read_folds(directory: PathLike) -> list[dict[str, np.ndarray]]:
    """Read `FDDB-fold-01-ellipseList.txt` to `-10-`.

    Args:
        directory: The folder `FDDB-folds`.

    Returns:
        List of ten dicts, photo name -> float64 ellipses `[G, 5]`: long radius, short radius, angle of the long axis in
        radians, centre x, centre y.

    Raises:
        FileNotFoundError: A fold is missing.
        ValueError: A file is broken; names file and line.
    """
    paths = [Path(directory) / f"FDDB-fold-{fold:02d}-ellipseList.txt" for fold in range(1, NUM_FOLDS + 1)]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no {path.name} in {directory}: expected the ten ellipse lists of FDDB-folds")
    return [{name: rows[:, :5] for name, rows in read_blocks(path, columns=6).items()} for path in paths]


def read_detection_list(path: PathLike) -> dict[str, ImageDetections]:
    """Read one FDDB result file, of all photos one after the other: dict name -> `ImageDetections` in `xyxy`."""
    found = {}
    for name, rows in read_blocks(path, columns=5).items():
        boxes = rows[:, :4].copy()
        boxes[:, 2:] += boxes[:, :2]
        found[name] = ImageDetections(boxes, rows[:, 4]) if len(rows) else NOTHING
    return found


def write_detection_list(path: PathLike, detections: Mapping[str, Any]) -> None:
    """Write one FDDB result file: for each photo name, count, then `x y w h score`, as the official tool reads it."""
    lines = []
    for name, found in detections.items():
        lines += [name, str(len(found.scores))]
        for (x1, y1, x2, y2), score in zip(found.boxes, found.scores, strict=True):
            lines.append(f"{x1:.10g} {y1:.10g} {x2 - x1:.10g} {y2 - y1:.10g} {float(score)!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_blocks(path: PathLike, columns: int) -> dict[str, np.ndarray]:
    """Blocks of name, count, rows: dict name -> float64 `[N, columns]`. ValueError names file and line."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks, at = {}, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        name = lines[at].strip()
        try:
            count = int(lines[at + 1])
            rows = [line.split() for line in lines[at + 2 : at + 2 + count]]
            blocks[name] = np.array(rows, np.float64).reshape(count, columns)
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}, line {at + 1}: expected {name!r}, a count, then that many lines of {columns} numbers"
            ) from error
        if not np.isfinite(blocks[name]).all():
            raise ValueError(f"{path}, line {at + 1}: a number of {name!r} is not finite")
        at += 2 + count
    return blocks
