"""Divide the input photos into parts, and read the photos of a part. Runs on the driver and on workers."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retinaface_tf.common.files import find_photos
from retinaface_tf.common.text import one_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.report import file_name

LARGEST_PART = 500  # photos
SMALLEST_PART = 8
KINDS = {".parquet": "parquet", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord"}


@dataclass(frozen=True)
class Part:
    """Photos that become one file of rows.

    Attributes:
        kind: "files", "parquet" or "tfrecord".
        paths: tuple of str: the photos, or the one file that holds them.
        group: int, the row group of a Parquet file; -1 else.
    """

    kind: str
    paths: tuple
    group: int = -1

    @property
    def name(self) -> str:
        """The file of its rows: str, the same for the same part on any day and machine."""
        text = "\n".join([self.kind, str(self.group), *self.paths])
        return f"part-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}.parquet"


def find_parts(
    inputs: Sequence[str],
    part_size: int | None,
    done: Collection[str] = frozenset(),
    skip: PathLike | None = None,
    workers: int = 1,
) -> tuple[list[Part], list[str], list[str]]:
    """Divide the inputs into parts: (list of `Part`, list of complaints, list of notes, a line each).

    Args:
        inputs: photos, folders and patterns, as `retinaface-tf detect` takes them, or Parquet files (a part is a row
            group) and TFRecord files (a part is a file), or patterns of those.
        part_size: photos of a part of photo files; `None` for what gives each of the `workers` some parts.
        done: the photo files that are not to be looked at again.
        skip: path of a folder that is not searched, or `None`.
        workers: number of workers that the parts are for.
    """
    parts, photos, complaints = [], [], []
    for word in inputs:
        kind = KINDS.get(Path(word).suffix.lower())
        if kind is None:
            photos.append(word)
            continue
        paths = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else [word]  # noqa: PTH207
        if not paths:
            complaints.append(f"{word}: no file matches this pattern")
        for path in paths:
            groups = _row_groups(path) if kind == "parquet" else [-1]
            parts += [Part(kind, (path,), group) for group in groups]
    found, more, notes = find_photos(photos, skip=skip) if photos else ([], [], [])
    size = choose_part_size(len(found), workers) if part_size is None else part_size
    return parts + _cut([str(path) for path, _ in found], size, done), complaints + more, notes


def choose_part_size(photos: int, workers: int) -> int:
    """The photos of a part: two parts or more for every worker, and at most `LARGEST_PART` photos in each."""
    return max(SMALLEST_PART, min(LARGEST_PART, -(-photos // (2 * workers))))


def _cut(photos, part_size, done):
    """Parts of the photos that are not done; those of an earlier run as they were, if the photos are the same."""
    pieces = [photos[i : i + part_size] for i in range(0, len(photos), part_size)]
    left = [[photo for photo in piece if file_name(photo) not in done] for piece in pieces]
    if any(some and some != piece for some, piece in zip(left, pieces, strict=True)):  # photos came or went since
        photos = [photo for piece in left for photo in piece]
        left = [photos[i : i + part_size] for i in range(0, len(photos), part_size)]
    return [Part("files", tuple(piece)) for piece in left if piece]


def _row_groups(path):
    import pyarrow.parquet as pq

    try:
        return range(pq.ParquetFile(path).num_row_groups)
    except OSError as error:
        raise OSError(f"{path}: can't be read ({error.strerror or error})") from None
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise ValueError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None


def read_photos(part: Part, column: str) -> Iterator[tuple[str, Path | bytes]]:
    """The photos of a part: (name, what `load_image` takes). The name is the path, or the file's with `#` and the row.

    `column` is where a Parquet file or a TFRecord's examples keep the encoded photo: bytes, or in Parquet also a struct
    with the field "bytes", as Hugging Face datasets have it. ValueError if it is not there.
    """
    if part.kind == "files":
        yield from ((file_name(path), path) for path in part.paths)
    elif part.kind == "parquet":
        yield from _rows(part.paths[0], part.group, column)
    else:
        yield from _examples(part.paths[0], column)


def _rows(path, group, column):
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    if column not in file.schema_arrow.names:
        raise ValueError(f"{path}: no column {column!r}. It has {', '.join(file.schema_arrow.names)}: --image-column")
    kind = str(file.schema_arrow.field(column).type)
    if not re.match(r"(large_)?binary|fixed_size_binary|struct<.*\bbytes: (large_)?binary", kind):  # no paths of files
        raise ValueError(
            f"{path}: the column {column!r} holds {one_line(kind, 80)}. Expected the bytes of photos, or a struct with "
            "bytes: --image-column"
        )
    first = sum(file.metadata.row_group(i).num_rows for i in range(group))
    for batch in file.iter_batches(batch_size=64, row_groups=[group], columns=[column]):
        for value in batch.column(0).to_pylist():
            yield f"{path}#{first}", (value.get("bytes") if isinstance(value, dict) else value) or b""
            first += 1


def _examples(path, column):
    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    for number, record in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator()):
        try:
            features = tf.train.Example.FromString(record).features.feature
        except Exception:  # a damaged record costs no other
            features = {}
        if number == 0 and column not in features:
            raise ValueError(f"{path}: no feature {column!r}. It has {', '.join(sorted(features))}: --image-column")
        photo = features[column].bytes_list.value if column in features else ()
        yield f"{path}#{number}", photo[0] if photo else b""
