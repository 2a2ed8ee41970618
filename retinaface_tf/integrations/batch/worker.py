"""A worker with one model that writes the rows of parts, and the folder of these rows. Independent of Ray."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import retinaface_tf
from retinaface_tf import load
from retinaface_tf.common.files import atomic_write, require_writable
from retinaface_tf.common.json_files import DictOf, Int, Optional, read_json
from retinaface_tf.common.run_folder import begin_or_resume
from retinaface_tf.common.types import LANDMARK_NAMES, PathLike
from retinaface_tf.image import ImageError
from retinaface_tf.image.loading import load_reduced
from retinaface_tf.inference.report import file_name
from retinaface_tf.inference.stream import describe_error, detect_stream
from retinaface_tf.integrations.batch.sources import read_photos

if TYPE_CHECKING:
    import pyarrow

    from retinaface_tf import Detections
    from retinaface_tf.integrations.batch.sources import Part


RUN_FILE = "_run.json"  # Spark, DuckDB and pyarrow pass over names with an underscore


def open_folder(folder: PathLike, options: dict[str, Any]) -> None:
    """Begin a run in a folder, or resume one; `options` are JSON-ready: all that the rows depend on.

    Raises:
        ValueError: The folder holds rows of another model or other options: they would not belong together.
        OSError: It can't be written.
    """
    require_writable(Path(folder) / RUN_FILE)
    settings = {"retinaface_tf": retinaface_tf.__version__, **options}
    unknown = {name: options[name] for name in ("runtime",) if name in options}  # to versions up to 0.2
    begin_or_resume(
        folder,
        settings,
        file=RUN_FILE,
        has_results=bool(parts_done(folder)),
        may_change=["retinaface_tf"],
        complete=lambda before: {**unknown, **before},
    )


def photos_done(folder: PathLike) -> dict[str, bool]:
    """The finished photos: dict of name to whether it failed.

    Raises:
        ValueError: naming a file of rows that is damaged.
    """
    import pyarrow.parquet as pq

    done = {}
    for path in parts_done(folder):
        try:
            table = pq.read_table(path, columns=["file", "error"])
            done.update(zip(table["file"].to_pylist(), table["error"].is_valid().to_pylist(), strict=True))
        except (OSError, ValueError, KeyError) as error:
            line = str(error).splitlines()[0]
            raise ValueError(f"{path}: not a complete part ({line}). Delete it and run the command again") from None
    return done


def parts_done(folder: PathLike) -> list[Path]:
    """Paths of the finished parts: list."""
    return sorted(Path(folder).glob("part-*.parquet"))


FACE_FIELDS = ("score", "x1", "y1", "x2", "y2", *(f"{point}_{axis}" for point in LANDMARK_NAMES for axis in "xy"))


def schema() -> pyarrow.Schema:
    """The `pyarrow.Schema` of every part.

    file: name of the photo, unique within a run. width, height: pixels as a person sees it, null where it failed.
    faces: list, highest score first, empty without faces; each a struct of float32: score, box corners, landmarks,
    in pixels of the photo. error: the line that says why it failed, else null.
    """
    import pyarrow as pa

    face = pa.struct([(name, pa.float32()) for name in FACE_FIELDS])
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            ("width", pa.int32()),
            ("height", pa.int32()),
            pa.field("faces", pa.list_(face), nullable=False),
            ("error", pa.string()),
        ]
    )


def row(file: str, detections: Detections | None = None, error: str | None = None) -> dict[str, Any]:
    """One photo as a dict for `schema`: of `Detections`, or, without them, of an error."""
    if detections is None:
        return {"file": file, "width": None, "height": None, "faces": [], "error": error}
    numbers = zip(detections.scores, detections.boxes, detections.landmarks.reshape(-1, 10), strict=True)
    faces = [dict(zip(FACE_FIELDS, (score, *box, *points), strict=True)) for score, box, points in numbers]
    return {"file": file, "width": detections.width, "height": detections.height, "faces": faces, "error": None}


DEATHS = 2  # so many at one photo are no accident: workers are also lost to others' doing


class Attempts:
    """The attempts at one part, whose file `path` is not there yet; `again`: an earlier one was cut short."""

    def __init__(self, path: PathLike) -> None:
        path = Path(path)
        self.note = path.with_name(f".{path.name}.tries")
        try:
            note = read_json(self.note, {"at": Optional(str), "deaths": DictOf(Int(low=0))})
        except (OSError, ValueError):
            note = None
        self.again = note is not None
        self.deaths = note["deaths"] if note else {}
        if note and note["at"] is not None:
            self.deaths[note["at"]] = self.deaths.get(note["at"], 0) + 1
        self.look_at(None)

    def look_at(self, name: str | None) -> None:
        """Note which photo comes next; `None` for many at once."""
        with atomic_write(self.note) as file:
            json.dump({"at": name, "deaths": self.deaths}, file)

    def is_deadly(self, name: str) -> bool:
        """Whether the process died at this photo too often."""
        return self.deaths.get(name, 0) >= DEATHS

    def end(self) -> None:
        """The part is there: the note goes."""
        self.note.unlink(missing_ok=True)


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
            pq.write_table(pa.Table.from_pylist(rows, schema=schema()), file, compression="zstd")
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
                yield row(name, error=f"{name}: the photo made the process crash, probably for lack of memory")
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
        return row(result.key, result.detections)
    return row(result.key, error=describe_error(result.key, result.error))


def _numbers(rows):
    return {
        "photos": len(rows),
        "faces": sum(len(row["faces"]) for row in rows),
        "errors": sum(row["error"] is not None for row in rows),
    }
