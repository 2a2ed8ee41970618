"""The folder of a batch run: what it was begun with, and which photos are there."""

import hashlib
import json
from pathlib import Path
from typing import Any

import retinaface_tf
from retinaface_tf.common.files import atomic_write, require_writable
from retinaface_tf.common.types import PathLike

RUN_FILE = "_run.json"  # Spark, DuckDB and pyarrow pass over names with an underscore


def open_folder(folder: PathLike, model: str, options: dict[str, Any]) -> None:
    """Begin a run in a folder, or go on with one.

    Args:
        folder: Path.
        model: str, as `retinaface_tf.load` takes it.
        options: dict, JSON-ready, of all that changes the rows.

    Raises:
        ValueError: if the folder holds a run with another model or other options: its rows would not belong together.
        OSError: if it can't be written.
    """
    path = Path(folder) / RUN_FILE
    ours = {"model": _fingerprint(model), **options}
    require_writable(path)
    if not path.exists() or not parts_done(folder):
        with atomic_write(path) as file:
            json.dump({"retinaface_tf": retinaface_tf.__version__, **ours}, file, indent=1)
        return
    try:
        theirs = json.loads(path.read_text("utf-8"))
        differ = [f"{name} {theirs[name]!r} there, {ours[name]!r} now" for name in ours if theirs[name] != ours[name]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged. Choose another --output") from None
    if differ:
        raise ValueError(f"{folder}: holds rows of another run ({'; '.join(differ)}). Choose another --output")


def photos_done(folder: PathLike) -> dict[str, bool]:
    """The photos whose rows are there: dict name -> whether it failed.

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
            raise ValueError(f"{path}: not the rows of a part ({line}). Delete it to have them made again") from None
    return done


def parts_done(folder: PathLike) -> list[Path]:
    """Paths of the parts that are there: list."""
    return sorted(Path(folder).glob("part-*.parquet"))


def remove_leftovers(folder: PathLike) -> None:
    """Delete what workers that were killed while writing have left of parts that are there by now."""
    for path in Path(folder).glob(".part-*.parquet.*"):
        if path.with_name(path.name[1:].rsplit(".", 1)[0]).exists():
            path.unlink(missing_ok=True)


def _fingerprint(model):
    """The sha256 of a model's files, or the name of a preset, which has no path."""
    path, digest = Path(model), hashlib.sha256()
    if not path.exists():
        return model
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.read_bytes())
    return f"sha256 {digest.hexdigest()[:16]}"
