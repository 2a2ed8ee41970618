"""Which photos did the user mean, and how are results written without ever leaving half a file?"""

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retinaface_tf.common.types import PathLike

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")


def find_photos(inputs: Iterable[str], skip: PathLike | None = None) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Photos that paths, folders and patterns name.

    Args:
        inputs: list of str: a file, a folder (searched with all below it, by suffix) or a pattern such as `*.png`.
        skip: path of a folder that is not searched, being where results go; or `None`.

    Returns:
        (list of (path, name below its folder or alone), each photo once, in order; list of complaints, a line each).
    """
    photos, complaints = {}, []
    skip = skip and Path(skip).resolve()
    for word in inputs:
        path = Path(word)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())
            if skip and skip != path.resolve():
                found = [p for p in found if skip not in p.resolve().parents]
            photos.update({p: p.relative_to(path) for p in found if p not in photos})
            if not found:
                complaints.append(f"{word}: no photo in this folder (looked for {' '.join(PHOTO_SUFFIXES)})")
        elif glob.has_magic(word) and not path.exists():
            found = sorted(Path(p) for p in glob.glob(word, recursive=True) if Path(p).is_file())  # noqa: PTH207
            photos.update({p: Path(p.name) for p in found if p not in photos})
            if not found:
                complaints.append(f"{word}: no file matches this pattern")
        else:
            photos.setdefault(path, Path(path.name))
    return list(photos.items()), complaints


def is_video(word: str | os.PathLike[str]) -> bool:
    """Whether a path that a user gave is a clip, by its suffix."""
    return Path(word).suffix.lower() in VIDEO_SUFFIXES and not Path(word).is_dir()


def distinct_names(names: Iterable[Path]) -> list[Path]:
    """The paths, with `-2`, `-3` … before the suffix of those that, suffix aside, came before: list of `Path`."""
    taken, result = set(), []
    for name in names:
        candidate, number = name, 2
        while candidate.with_suffix("").as_posix().lower() in taken:
            candidate, number = name.with_name(f"{name.stem}-{number}{name.suffix}"), number + 1
        taken.add(candidate.with_suffix("").as_posix().lower())
        result.append(candidate)
    return result


def require_writable(path: PathLike) -> None:
    """Make the folder of a file that is to be written later, and see now whether it will take it.

    Raises:
        OSError: one line; before hours of work rather than after.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: can't be written ({error.strerror or error})") from None


@contextmanager
def atomic_write(path: PathLike, mode: str = "w") -> Iterator[Any]:
    """Open a file for writing that takes its name only when all is written: half a file is never seen.

    Args:
        path: Path of the file; its folder is made if need be.
        mode: "w" (UTF-8 text) or "wb".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def save_model(model: Any, path: PathLike) -> None:
    """Write a Keras model as a `.keras` file, whole or not at all.

    Args:
        model: Keras model.
        path: path of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.keras"
        model.save(made)
        content = made.read_bytes()
    with atomic_write(path, "wb") as file:
        file.write(content)
