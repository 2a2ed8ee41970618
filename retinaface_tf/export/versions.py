"""Numbered folders, as TensorFlow Serving wants them: PATH/1, PATH/2, ... of which it serves the highest."""

import tempfile
from pathlib import Path

from retinaface_tf.common.types import PathLike


def next_version(path: PathLike, replace: bool = False) -> Path:
    """The folder that a new version shall take.

    Args:
        path: of the folder of versions; need not exist.
        replace: bool. Take the place of the newest version rather than the number after it.

    Returns:
        Path, `path / number`; it exists only where it is to be replaced. Nothing is made.

    Raises:
        OSError: if `path` holds something that is no version, is a file, or can't be written.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path}: exists, and is a file. Expected the folder for numbered versions")
    entries = list(path.iterdir()) if path.is_dir() else []
    versions = [int(p.name) for p in entries if p.name.isdecimal() and p.is_dir()]
    if foreign := sorted(p.name for p in entries if not p.name.isdecimal() and not p.name.startswith(".")):
        raise FileExistsError(
            f"{path}: exists, and holds {foreign[0]}. Expected a new folder, or one of numbered versions"
        )
    newest = max(versions, default=0)
    target = path / str(max(1, newest if replace else newest + 1))
    ancestor = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise OSError(f"{path}: can't be written ({error.strerror or error})") from None
    return target
