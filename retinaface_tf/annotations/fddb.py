"""FDDB's ten folds of ellipses, and its text blocks of name, count and rows."""

from pathlib import Path

import numpy as np

from retinaface_tf.annotations.text import parse_file, parse_numbers, read_lines
from retinaface_tf.common.types import PathLike

NUM_FOLDS = 10


def read_folds(directory: PathLike) -> list[dict[str, np.ndarray]]:
    """Read `FDDB-fold-01-ellipseList.txt` to `-10-` of the folder `FDDB-folds`.

    Returns:
        List of ten dicts, photo name -> float64 ellipses `[G, 5]`: long radius, short radius, angle of the long axis in
        radians, center x, center y.

    Raises:
        FileNotFoundError: A fold is missing.
        ValueError: A file is broken; names file and line.
    """
    paths = [Path(directory) / f"FDDB-fold-{fold:02d}-ellipseList.txt" for fold in range(1, NUM_FOLDS + 1)]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no {path.name} in {directory}: expected the ten ellipse lists of FDDB-folds")
    return [{name: rows[:, :5] for name, rows in read_blocks(path, columns=6).items()} for path in paths]


def read_blocks(path: PathLike, columns: int) -> dict[str, np.ndarray]:
    """Blocks of name, count and rows: dict name -> float64 `[N, columns]`. ValueError names file and line."""
    path = Path(path)
    lines = read_lines(path)
    blocks, at = {}, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        name = parse_file(lines[at], f"{path}:{at + 1}")
        word = lines[at + 1].strip() if at + 1 < len(lines) else ""
        count = int(word) if word.isascii() and word.isdecimal() and len(word) < 10 else -1
        if count < 0 or at + 2 + count > len(lines):
            raise ValueError(
                f"{path}:{at + 1}: expected {name[:60]!r}, a count, then that many lines of {columns} numbers"
            )
        rows = [
            parse_numbers(lines[row].split(), columns, f"{path}:{row + 1}: a row of {name[:60]!r}")
            for row in range(at + 2, at + 2 + count)
        ]
        if name in blocks:
            raise ValueError(f"{path}:{at + 1}: lists {name[:60]!r} twice; remove one of the two")
        blocks[name] = np.array(rows, np.float64).reshape(count, columns)
        at += 2 + count
    return blocks
