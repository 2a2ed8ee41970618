"""A table on disk that grows row by row and survives a restart."""

import csv
from pathlib import Path

import numpy as np

from retinaface_tf.files import atomic_write


class Table:
    """A CSV file of rows that a restarted run goes on with: rows of the future are cut off.

    Args:
        path: path.
        key: column that grows from row to row.
        before: rows whose key is not below are dropped.
    """

    def __init__(self, path, key, before):
        self.path = Path(path)
        self.rows = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if _whole(row) and int(row[key]) < before]
            self._write()

    def add(self, row):
        """Append a row: a dict of str or numbers."""
        new_columns = self.rows and set(row) - set(self.rows[0])
        self.rows.append({name: _text(value) for name, value in row.items()})
        if len(self.rows) == 1 or new_columns:
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, list(self.rows[0]), lineterminator="\n").writerow(self.rows[-1])

    def _write(self):
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _text(value):
    return f"{float(value):.7g}" if isinstance(value, (float, np.floating)) or hasattr(value, "numpy") else str(value)


def _whole(row):
    """Whether a row was written to its end: a killed run may leave half a line."""
    return None not in row and None not in row.values()
