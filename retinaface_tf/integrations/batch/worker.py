"""A worker with one model that writes the rows of parts. Independent of Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf import load
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike
from retinaface_tf.image import ImageError
from retinaface_tf.image.loading import load_reduced
from retinaface_tf.inference.report import file_name
from retinaface_tf.inference.stream import describe_error, detect_stream
from retinaface_tf.integrations.batch import output
from retinaface_tf.integrations.batch.output import Attempts
from retinaface_tf.integrations.batch.sources import read_photos

if TYPE_CHECKING:
    from retinaface_tf.integrations.batch.sources import Part


class Worker:
    """A model and the folder that its rows go to.

    Args:
        model: what `retinaface_tf.load` takes.
        output: path of the folder of parts, the same on every machine.
        options: dict, arguments of `detect`; its `batch_size` photos are decoded and run together.
        column: see `read_photos`.
        threads, runtime: as `retinaface_tf.load` takes them.
    """

    def __init__(
        self,
        model: str,
        output: PathLike,
        options: dict[str, Any],
        column: str,
        threads: int,
        runtime: str | None = None,
    ) -> None:
        self.output, self.options, self.column = Path(output), options, column
        self.model = load(model, threads=threads, runtime=runtime)

    def __call__(self, part: Part) -> dict[str, Any]:
        """Write the rows of a `Part`, unless they are there: dict of the numbers of its photos, faces and errors."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.output / part.name
        if path.exists():  # a part that is tried again after its worker was lost, perhaps just after writing
            table = pq.read_table(path, columns=["faces", "error"])
            return _numbers(table.to_pylist())
        attempts = Attempts(path)
        rows = list(self._careful_rows(part, attempts) if attempts.again else self._rows(part))
        with atomic_write(path, "wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=output.schema()), file, compression="zstd")
        attempts.end()
        return _numbers(rows)

    def _rows(self, part):
        """The rows of a part; the next photos are read and decoded while the network runs."""
        photos = ((name, (name, source)) for name, source in read_photos(part, self.column))
        detect = partial(self.model.detect, **self.options)
        for result in detect_stream(detect, photos, read=self._load, batch_size=self.options["batch_size"]):
            yield _row(result)

    def _careful_rows(self, part, attempts):
        """The rows of a part that was interrupted before, photo by photo."""
        for name, source in read_photos(part, self.column):
            if attempts.is_deadly(name):
                yield output.row(name, error=f"{name}: the photo made the process crash, probably for lack of memory")
                continue
            attempts.look_at(name)
            photo = [(name, (name, source))]
            for result in detect_stream(partial(self.model.detect, **self.options), photo, read=self._load):
                yield _row(result)

    def _load(self, photo):
        """The image of a (name, source); the name stands for the bytes of the photo in messages."""
        name, source = photo
        resize = self.options.get("resize")
        long_side = max(resize) if isinstance(resize, (tuple, list)) else None
        try:
            return load_reduced(source, long_side, self.options.get("max_pixels"))
        except ImageError as error:
            if not isinstance(source, bytes):
                raise
            raise ImageError(file_name(error).replace(f"{len(source)} bytes", name, 1)) from None


def _row(result):
    if result.error is None:
        return output.row(result.key, result.detections)
    return output.row(result.key, error=describe_error(result.key, result.error))


def _numbers(rows):
    return {
        "photos": len(rows),
        "faces": sum(len(row["faces"]) for row in rows),
        "errors": sum(row["error"] is not None for row in rows),
    }
