"""Text, numbers and names in label files: read in any Unicode encoding, refused with the file and the line."""

from __future__ import annotations

import codecs
import errno
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retinaface_tf.common.files import is_companion, read_bytes
from retinaface_tf.common.types import PathLike

# UTF-32's mark begins with UTF-16's, so the longer ones come first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DRIVE = re.compile(r"[A-Za-z]:")
SURROGATE = re.compile("[\ud800-\udfff]")
FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}
LARGEST = 1e9  # pixels; no label is further out


def read_text(path: PathLike) -> str:
    """The text of a label file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        OSError: It can't be read, or is no regular file.
        ValueError: It is in another encoding; names the line.
    """
    return decode_text(read_bytes(path), path)


def decode_text(content: bytes, path: PathLike, encoding: str | None = None) -> str:
    """Bytes as text, as `read_text` does it; in another encoding where one is declared."""
    encoding = find_encoding(content, encoding)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        where = f"{path}:{line}" if encoding.startswith("utf-8") else str(path)
        raise ValueError(
            f"{where}: expected UTF-8 text ({error.reason} at byte {error.start}). Save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}:{line}: expected text, found a NUL character")
    return text


def find_encoding(content: bytes, declared: str | None = None) -> str:
    """The encoding of a text, by its first bytes: that of a mark, the declared one, UTF-16 without a mark, or UTF-8."""
    marked = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    return marked or declared or _guess_utf16(content) or "utf-8"


def _guess_utf16(content):
    """UTF-16 without a byte order mark: ASCII letters leave every second byte 0."""
    start = content[:200]
    half = len(start) // 2
    if half and not len(content) % 2:
        if start[1::2].count(0) > 0.8 * half and not start[::2].count(0):
            return "utf-16-le"
        if start[::2].count(0) > 0.8 * half and not start[1::2].count(0):
            return "utf-16-be"
    return None


def read_lines(path: PathLike) -> list[str]:
    """The lines of a label file, without their ends. Only CR and LF end a line; names may hold any other letter."""
    return [line.rstrip("\n") for line in io.StringIO(read_text(path), newline=None)]


def parse_numbers(words: Sequence[Any], count: int, what: str) -> list[float]:
    """Words as finite floats, exactly `count`; `what` begins the message: where they are and what they mean.

    Raises:
        ValueError: Too few or too many, no number, not finite, or beyond any photo.
    """
    try:
        # Python takes True, 1_0 and the digits of all scripts for numbers.
        if isinstance(words, str | dict) or any(
            isinstance(word, bool) or (isinstance(word, str) and ("_" in word or not word.isascii())) for word in words
        ):
            raise TypeError
        values = [float(word) for word in words]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what}: expected {count} numbers. Received: {shorten(words)}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{what}: expected {count} finite numbers. Received: {shorten(words)}")
    if max(map(abs, values), default=0) > LARGEST:
        raise ValueError(f"{what}: expected {count} numbers of at most {LARGEST:g}. Received: {shorten(words)}")
    return values


def parse_flag(word: Any, what: str) -> bool:
    """A word, number or truth value as a flag, in any letter case; nothing is False. ValueError for anything else."""
    text = str("" if word is None else word).strip().lower()
    flag = FLAGS.get(text.removesuffix(".0"))
    if flag is None:
        raise ValueError(f"{what}: expected 0 or 1. Received: {shorten(word)}")
    return flag


def parse_size(words: Sequence[Any], what: str) -> tuple[int, int] | None:
    """Width and height as a source claims them; None where it leaves them empty or writes 0."""
    if not all(words):
        return None
    width, height = parse_numbers(words, 2, what)
    if width < 0 or height < 0:
        raise ValueError(f"{what}: expected a width and a height. Received: {shorten(words)}")
    return (int(width), int(height)) if width >= 1 and height >= 1 else None


def parse_file(name: Any, where: str) -> str:
    """The path of a photo below the folder of photos, with `/`.

    Raises:
        ValueError: No name, or one that leads out of the folder.
    """
    text = name.strip().replace("\\", "/") if isinstance(name, str) else ""
    if not is_below(text) or SURROGATE.search(text):
        raise ValueError(f"{where}: expected the name of a photo below the images folder. Received: {shorten(name)}")
    return PurePosixPath(text).as_posix()


def is_below(name: str) -> bool:
    """Whether a path with `/` names something below the folder that it starts from, on any system."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not DRIVE.match(name)


def shorten(value: Any, width: int = 80) -> str:
    """A value as part of a one-line message."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= width else f"{text[:width]}…"


def visible_files(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Files below a folder by suffix, sorted; without hidden ones and what macOS leaves, such as `._a.jpg`."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not any(map(is_companion, parts)) and path.suffix.lower() in suffixes and path.is_file():
            yield path


def same_letters(name: str) -> str:
    """A name without differences of letter case and of Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have, too long or with a NUL character."""
    try:
        return path.is_file()
    except ValueError:
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
