"""Find photos, open files from others safely, and write files atomically."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.text import pluralize, printable
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    import keras

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")  # read by the plug-in pillow-heif
# Whatever Pillow decodes as a picture. EPS is not among them: Ghostscript would run the file as a program.
_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .avifs .gif .tif .tiff .bmp .dib .ppm .pgm .pbm .pnm .pfm
    .jp2 .j2k .j2c .jpc .jpf .jpx .tga .icb .vda .vst .sgi .rgb .rgba .bw .pcx .dcx .dds .qoi .ico .icns .cur .im
    .msp .xbm .xpm .psd .ras .blp .ftc .ftu .pcd .pxr .fli .flc .iim .fit .fits
"""
PHOTO_SUFFIXES = tuple(_SUFFIXES.split())
_VIDEO_SUFFIXES = """
    .mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .vob .ogv .mxf .wmv .asf .flv .3gp .3g2 .dv .divx .mjpeg
"""
VIDEO_SUFFIXES = tuple(_VIDEO_SUFFIXES.split())
VIDEO_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtp", "udp", "srt", "tcp")  # addresses that FFmpeg opens as a clip
COMPANION_FOLDERS = ("__MACOSX", "@eaDir")  # made by macOS and by network drives beside the photos
MAX_NAME = 255  # bytes of a file's name, on every usual file system


class FoundPhotos(NamedTuple):
    """The photos that paths, folders and patterns name.

    Attributes:
        photos: (path, name below its folder, or its name alone), each photo once, in order.
        complaints: One line for each input that holds no photo.
        notes: One line for each folder in which files were passed over, with their number and the reason.
    """

    photos: list[tuple[Path, Path]]
    complaints: list[str]
    notes: list[str]


def find_photos(inputs: Iterable[str], skip: PathLike | None = None) -> FoundPhotos:
    """Find the photos that a user names.

    Args:
        inputs: Each a file, a folder (searched with all below it, by suffix) or a pattern such as `*.png`. A named file
            is taken at its word, whatever its suffix.
        skip: Path of a folder that is not searched, such as the one for the results; or `None`.

    Raises:
        ValueError: An input is empty.
    """
    photos: dict[Path, Path] = {}
    complaints, notes = [], []
    skipped = resolve(skip) if skip else None
    for word in inputs:
        if not str(word).strip():
            raise ValueError(f"expected a photo, a folder or a pattern. Received an empty name: {word!r}")
        path = Path(word)
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", word) and not path.exists():
            complaints.append(f"{printable(word)}: photos are not fetched from an address. Save it, and give its path")
        elif path.is_dir():
            found, note = _search(path, skipped if skipped != resolve(path) else None)
            photos.update({p: p.relative_to(path) for p in found if p not in photos})
            notes += [f"{word}: {note}"] if note else []
            if not found:
                complaints.append(f"{word}: no photo in this folder (looked for {' '.join(PHOTO_SUFFIXES[:12])} …)")
        elif glob.has_magic(word) and not path.exists():
            found = sorted(Path(p) for p in glob.glob(word, recursive=True) if Path(p).is_file())  # noqa: PTH207
            found = [p for p in found if not set(COMPANION_FOLDERS) & set(p.parts)]
            photos.update({p: Path(p.name) for p in found if p not in photos})
            if not found:
                complaints.append(f"{word}: no file matches this pattern")
        else:
            photos.setdefault(path, Path(path.name))
    return FoundPhotos(list(photos.items()), complaints, notes)


def _search(folder, skip):
    """(the photos below a folder, in order; one line about what was passed over, or "")."""
    has_heif = find_spec("pillow_heif") is not None
    photos, others, hidden, heif, links, broken = [], Counter(), 0, 0, 0, 0
    for place, folders, names in os.walk(folder, followlinks=False):
        here = Path(place)
        if skip is not None and skip in (resolve(here), *resolve(here).parents):
            folders.clear()
            continue
        hidden += sum(is_companion(name) for name in folders)
        folders[:] = sorted(name for name in folders if not is_companion(name))
        links += sum((here / name).is_symlink() for name in folders)  # `os.walk` does not enter them
        for name in names:
            suffix = Path(name).suffix.lower()
            if is_companion(name):
                hidden += 1
            elif suffix in HEIF_SUFFIXES and not has_heif:
                heif += 1
            elif suffix not in PHOTO_SUFFIXES and suffix not in HEIF_SUFFIXES:
                others[suffix or "no suffix"] += 1
            elif (here / name).is_file():
                photos.append(here / name)
            else:
                broken += 1
    reasons = []
    if others:
        kinds = ", ".join(kind for kind, _ in others.most_common(4)) + (" …" if len(others) > 4 else "")
        reasons.append(f"{pluralize(others.total(), 'file')} without a photo's suffix ({kinds})")
    if broken:
        reasons.append(f"{broken:,} with a photo's suffix that are no files (pipes, links to nothing)")
    if links:
        reasons.append(f"{pluralize(links, 'linked folder')}, which are searched if they are named themselves")
    if hidden:
        reasons.append(f"{hidden:,} hidden")
    if heif:
        reasons.append(f"{heif:,} HEIF, which need pillow-heif: {install_hint('heic')}")
    return sorted(photos), f"passed over {'; '.join(reasons)}" if reasons else ""


def resolve(path: PathLike) -> Path:
    """An absolute path with its symbolic links followed; links that lead in a circle stay as they are."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises a RuntimeError for a circle


def is_companion(name: str) -> bool:
    """Whether a name within a folder is hidden, or is what a system leaves beside photos."""
    return name.startswith(".") or name in COMPANION_FOLDERS


def is_video(word: str | os.PathLike[str]) -> bool:
    """Whether a path that a user gave is a clip, by its suffix, or an address of a clip."""
    if str(word).partition("://")[0] in VIDEO_SCHEMES and "://" in str(word):
        return True
    return Path(word).suffix.lower() in VIDEO_SUFFIXES and not Path(word).is_dir()


def distinct_names(names: Iterable[Path]) -> list[Path]:
    """The paths, with `-2`, `-3` … before the suffix of those that equal an earlier one apart from the suffix."""
    taken, result = set(), []
    for name in names:
        candidate, number = name, 2
        while candidate.with_suffix("").as_posix().lower() in taken:
            candidate = name.with_name(fit_name(name.stem, f"-{number}{name.suffix}"))
            number += 1
        taken.add(candidate.with_suffix("").as_posix().lower())
        result.append(candidate)
    return result


def fit_name(stem: str, ending: str) -> str:
    """`stem` + `ending` as a file's name of at most 255 bytes; a stem that must be cut for that stays distinct."""
    room = MAX_NAME - len(os.fsencode(ending))
    encoded = os.fsencode(stem)
    if len(encoded) <= room:
        return stem + ending
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: room - 9].decode("utf-8", "ignore") + f"-{digest}{ending}"


# Reading what others made -------------------------------------------------------------------------------------------


@contextmanager
def open_file(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a regular file for reading bytes. A named pipe or a device is refused at once: reading it may never end.

    Raises:
        OSError: There is no such file, it can't be read, or it is no regular file.
    """
    if not os.fspath(path):
        raise FileNotFoundError(errno.ENOENT, "expected the name of a file. Received an empty one", "''")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(error.errno, f"expected a file, found {_kind(path)}", os.fspath(path)) from None
        raise
    try:
        _require_regular(os.fstat(handle).st_mode, path)
        file = os.fdopen(handle, "rb")  # which calls a folder by its number
    except BaseException:
        os.close(handle)
        raise
    with file:
        yield file


def require_file(path: PathLike) -> Path:
    """A path whose file is regular, for libraries that open it themselves. OSError as `open_file`."""
    with open_file(path):
        return Path(path)


def read_bytes(path: PathLike, *, max_bytes: int | None = None) -> bytes:
    """The content of a regular file. OSError as `open_file`; ValueError if it is larger than `max_bytes`."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise ValueError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that are allowed")
        return file.read(-1 if max_bytes is None else max_bytes)


def _require_regular(mode, path):
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"expected a file, found {_kind(path, mode)}", os.fspath(path))


def _kind(path, mode=None):
    mode = Path(path).stat().st_mode if mode is None else mode
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


# Writing results ----------------------------------------------------------------------------------------------------

PARTIAL = re.compile(r"\.rf-[0-9a-f]{16}\.part(\.\w+)?")
_cleaned: set[Path] = set()  # folders that this process has looked through for what killed ones left


def is_stream(path: PathLike) -> bool:
    """Whether a path to write to is a pipe, a device or an open descriptor: what is written can't be taken back."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def require_writable(path: PathLike) -> None:
    """Make the folder of a file that is to be written later, and check now whether it can be.

    Raises:
        OSError: One line; before hours of work rather than after.
    """
    try:
        if not os.fspath(path):
            raise FileNotFoundError("expected the name of a file")
        if is_stream(path):
            if _descriptor(path) is None and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target = _target(path)
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if len(os.fsencode(target.name)) > MAX_NAME:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: can't be written ({error.strerror or error})") from None
    except ValueError:  # a NUL character
        raise ValueError(f"{os.fspath(path)!r}: no file can have this name") from None


@contextmanager
def atomic_write(path: PathLike, mode: str = "w") -> Iterator[Any]:
    """Open a file for writing under a temporary name; it is renamed when it is complete. Its folder is made if need be.

    A symbolic link is followed: the file that it names is written. An existing file keeps its permissions and owner. A
    pipe, a device or an open descriptor such as `/dev/stdout` is opened and written to. `mode` is "w" (UTF-8) or "wb".

    Raises:
        OSError: With the path of the file, also where the disk is full.
    """
    text: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
    with _named_errors(path):
        if is_stream(path):
            number = _descriptor(path)
            with open(path if number is None else os.dup(number), mode, **text) as file:  # noqa: PTH123
                yield file
            return
        with atomic_path(path) as (_, handle), os.fdopen(handle, mode, closefd=False, **text) as file:
            yield file


@contextmanager
def atomic_path(path: PathLike, suffix: str = "") -> Iterator[tuple[Path, int]]:
    """A temporary file in the same folder that is renamed to `path` at the end, for libraries that write to a path.

    Yields:
        (path of the file beside it, with this suffix; its open descriptor). Both end with the context.
    """
    with _named_errors(path):
        target = _target(path)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        beside, handle = _create_beside(target, suffix)
        is_open = True
        try:
            yield beside, handle
            _keep_owner_and_mode(beside, target)
            if fcntl is None:  # Windows renames no file that is open
                os.close(handle)
                is_open = False
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        finally:
            if is_open:
                os.close(handle)


def remove_leftovers(folder: PathLike, *, again: bool = False) -> None:
    """Remove incomplete files of killed processes from a folder. Files of running processes are locked and stay.

    A process looks once through each folder, unless it is to look `again`.
    """
    folder = resolve(folder)
    if fcntl is None or (folder in _cleaned and not again):
        return
    _cleaned.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if PARTIAL.fullmatch(entry.name)]:
            with suppress(OSError):
                handle = os.open(entry.path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    Path(entry.path).unlink()
                finally:
                    os.close(handle)


def _create_beside(target, suffix):
    """(path, descriptor) of a new, locked file in a target's folder. Its name is short: a long one stays possible."""
    while True:
        beside = target.with_name(f".rf-{secrets.token_hex(8)}.part{suffix}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(beside, flags, _mode_of(target) or 0o666)  # never wider than the file that it replaces
        if fcntl is None:
            return beside, handle
        with suppress(OSError):  # file systems without locks: nothing of theirs is cleaned up either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if beside.exists():  # else another process cleaned it up between the two calls
            return beside, handle
        os.close(handle)


def _mode_of(path):
    """The permissions of a file; 0 if there is none."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return 0


def _keep_owner_and_mode(beside, target):
    try:
        before = target.stat()
    except OSError:
        return
    own = beside.stat()
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):  # only root gives files away
            os.chown(beside, before.st_uid, before.st_gid)
    beside.chmod(_mode_of(target))


def _target(path):
    """The file that a path names, symbolic links followed, also where it is not there yet."""
    path = Path(path)
    if not path.is_symlink():
        return path
    target = resolve(path)
    if target.is_symlink():  # links that lead in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return target


def _descriptor(path):
    """The file descriptor that a path names, such as 1 for `/dev/stdout`, or `None`."""
    if os.name != "posix":
        return None
    name = os.fspath(path)
    for _ in range(40):
        match = re.fullmatch(r"/dev/(stdout|stderr)|(?:/dev/fd|/proc/(?:thread-)?self/fd)/(\d+)", os.fspath(name))
        if match:
            number = {"stdout": 1, "stderr": 2}.get(match[1]) or int(match[2] or 0)
            try:
                os.fstat(number)
            except OSError:
                return None
            return number
        if not Path(name).is_symlink():
            return None
        name = os.fspath(Path(name).parent / os.readlink(name))  # noqa: PTH115
    return None


@contextmanager
def _named_errors(path):
    """Give errors without a file, such as of a full disk, and those of the file beside it, the path that is meant."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename is None or PARTIAL.fullmatch(Path(os.fsdecode(error.filename)).name):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def save_model(model: keras.Model, path: PathLike) -> None:
    """Write a Keras model as a `.keras` file, atomically."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.keras"
        model.save(made)
        content = made.read_bytes()
    with atomic_write(path, "wb") as file:
        file.write(content)
