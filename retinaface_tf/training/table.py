"""A table on disk that grows row by row and survives a restart."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike


class Table:
    """A CSV file of rows that a restarted run goes on with: rows of the future are cut off.

    Args:
        path: path.
        key: column that grows from row to row.
        before: rows whose key is not below are dropped.
    """

    def __init__(self, path: PathLike, key: str, before: float) -> None:
        self.path = Path(path)
        self.rows = []
        if self.path.is_file():
            text = self.path.read_text("utf-8", errors="replace")
            lines = text[: text.rfind("\n") + 1].splitlines()  # a killed run may leave half a line
            self.rows = [row for row in csv.DictReader(lines) if _whole(row, key) and int(row[key]) < before]
            self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row: a dict of str or numbers."""
        new_columns = set(row) - set(self._columns())
        self.rows.append({name: _text(value) for name, value in row.items()})
        if new_columns or len(self.rows) == 1:
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns(), lineterminator="\n").writerow(self.rows[-1])

    def _columns(self):
        """Those of all rows: the first need not have all, such as scores that come every few epochs."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write(self):
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, self._columns(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _text(value):
    return f"{float(value):.7g}" if isinstance(value, (float, np.floating)) or hasattr(value, "numpy") else str(value)


def _whole(row, key):
    """Whether all columns are there, and the key is a number."""
    return None not in row and None not in row.values() and row.get(key, "").isdecimal()
