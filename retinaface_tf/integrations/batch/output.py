"""The folder of a batch run: what it was begun with, and which photos are there."""

import hashlib
from pathlib import Path
from typing import Any

import retinaface_tf
from retinaface_tf.common.files import require_writable
from retinaface_tf.common.run_folder import begin_or_resume
from retinaface_tf.common.types import PathLike

RUN_FILE = "_run.json"  # Spark, DuckDB and pyarrow pass over names with an underscore


def open_folder(folder: PathLike, model: str, options: dict[str, Any]) -> None:
    """Begin a run in a folder, or resume one.

    Args:
        folder: Folder of the rows.
        model: What `retinaface_tf.load` takes.
        options: JSON-ready dict of all that the rows depend on.

    Raises:
        ValueError: The folder holds rows of another model or other options: they would not belong together.
        OSError: It can't be written.
    """
    require_writable(Path(folder) / RUN_FILE)
    settings = {"retinaface_tf": retinaface_tf.__version__, "model": _fingerprint(model), **options}
    begin_or_resume(folder, settings, file=RUN_FILE, has_results=bool(parts_done(folder)), may_change=["retinaface_tf"])


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


def _fingerprint(model):
    """The sha256 of a model's files, or the name of a preset, which has no path."""
    path, digest = Path(model), hashlib.sha256()
    if not path.exists():
        return model
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.read_bytes())
    return f"sha256 {digest.hexdigest()[:16]}"
