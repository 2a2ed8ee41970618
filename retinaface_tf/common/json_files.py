"""Read JSON that others wrote: a bounded size, bounded numbers, a checked structure, and one line for what is wrong.

A schema is made of plain values and of the small classes below:

    {"name": FileName(), "bytes": Int(low=0), "faces": Optional(ListOf(Number(), length=4))}

A dict asks for its keys (those that are `Optional` may be missing; further keys are allowed and kept), `None` accepts
anything, a tuple accepts what one of its members does, and a type (`str`, `bool`, `dict`, `list`) its values.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinaface_tf.common.files import read_bytes
from retinaface_tf.common.types import PathLike

MAX_BYTES = 1 << 30
MAX_DEPTH = 64
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, alone
ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # also in whole pairs
MAX_NUMBER = 1 << 63  # an integer that NumPy's int64 can hold is below it


@dataclass(frozen=True)
class Optional:
    """A key that may be missing, or null."""

    schema: Any = None


@dataclass(frozen=True)
class Int:
    """An integer from `low` to `high`, both included; never a bool."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`, both included; never a bool."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Text:
    """A string of at most `max_length` characters without control characters."""

    max_length: int = 4096


@dataclass(frozen=True)
class FileName:
    """The name of a file or folder beside the one that names it: no separators, no drive, neither "." nor ".."."""

    max_length: int = 255


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class ListOf:
    """A list whose entries all follow one schema, of any length or of exactly `length`."""

    item: Any = None
    length: int | None = None


@dataclass(frozen=True)
class DictOf:
    """An object with any keys whose values all follow one schema."""

    value: Any = None


def read_json(path: PathLike, schema: Any = None, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file (UTF-8, UTF-16 or UTF-32) and check its structure; see the head of this module for schemas.

    Raises:
        OSError: There is no such file, or it can't be read.
        ValueError: One line that begins with the path, also for a file of more than `max_bytes`.
    """
    path = Path(path)
    return parse_json(read_bytes(path, max_bytes=max_bytes), schema, path)


def parse_json(text: str | bytes, schema: Any = None, where: PathLike = "JSON") -> Any:
    """Check JSON text that is in memory, as `read_json` does for a file. `where` begins the messages."""
    try:
        value = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_parse_object,
        )
    except RecursionError:
        raise ValueError(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not JSON (no UTF-8 text: {error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}: not JSON ({place}: {error.msg})") from None
    except _ContentError as error:
        raise ValueError(f"{where}: {error}") from None
    _check_depth(value, where)
    if ESCAPED_HALF.search(text if isinstance(text, str) else text.decode("latin-1")):
        _check_letters(value, where)
    check(value, schema, where)
    return value


def check(value: Any, schema: Any, where: PathLike = "JSON") -> None:
    """Check a value against a schema.

    Raises:
        ValueError: One line: `where`, the place within the value, what was expected and what came.
    """
    wrong = _first_mismatch(value, schema, "")
    if wrong:
        place, expected, received = wrong
        subject = f"`{place}`" if place else "the content"
        raise ValueError(f"{where}: {subject} must be {expected}. Received: {_shorten(received)}")


class _ContentError(Exception):
    pass


def _parse_int(text):
    number = int(text) if len(text) < 20 else MAX_NUMBER
    if abs(number) >= MAX_NUMBER:
        raise _ContentError(f"a number of {len(text.lstrip('-'))} digits is out of range")
    return number


def _parse_float(text):
    number = float(text)
    if math.isinf(number):
        raise _ContentError(f"the number {_shorten(text)} is out of range")
    return number


def _refuse_constant(text):
    raise _ContentError(f"{text} is not a number")


def _parse_object(pairs):
    value = dict(pairs)
    if len(value) < len(pairs):  # Python would keep the last and lose the others
        keys = [key for key, _ in pairs]
        raise _ContentError(f"the key {_shorten(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return value


def _check_depth(value, where):
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def _check_letters(value, where):
    """Refuse halves of surrogate pairs: no file can hold them, and the results of a run would be lost at its end."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            if half := HALF.search(one):
                raise ValueError(f"{where}: {half[0]!a} is half of a letter. Received: {_shorten(one)}")
        elif isinstance(one, dict):
            pending += [*one, *one.values()]
        elif isinstance(one, list):
            pending += one


TYPES = {str: "a string", bool: "true or false", dict: "an object", list: "a list"}


def _first_mismatch(value, schema, place):
    """(place, expected, received) of the first departure from the schema, or None."""
    match schema:
        case None:
            return None
        case type():
            return None if isinstance(value, schema) else (place, TYPES[schema], value)
        case tuple():
            wrong = [_first_mismatch(value, each, place) for each in schema]
            return None if None in wrong else (place, " or ".join(each[1] for each in wrong), value)
        case dict():
            return _first_wrong_key(value, schema, place)
        case ListOf(item, length):
            if not isinstance(value, list) or length not in (None, len(value)):
                return place, "a list" if length is None else f"a list of {length}", value
            wrong = (_first_mismatch(each, item, f"{place}[{index}]") for index, each in enumerate(value))
            return None if item is None else next((each for each in wrong if each), None)
        case DictOf(of):
            if not isinstance(value, dict):
                return place, "an object", value
            wrong = (_first_mismatch(each, of, f"{place}[{_shorten(key)}]") for key, each in value.items())
            return next((each for each in wrong if each), None)
        case Choice(values):
            return None if value in values else (place, f"one of {list(values)}", value)
        case Int(low, high) | Number(low, high):
            return _wrong_number(value, schema, low, high, place)
        case Text(most):
            good = isinstance(value, str) and len(value) <= most and not any(ord(letter) < 32 for letter in value)
            return None if good else (place, f"a string of at most {most} printable characters", value)
        case FileName(most):
            good = isinstance(value, str) and 0 < len(value) <= most and is_file_name(value)
            return None if good else (place, "a file's name without a folder", value)
        case Optional():
            return None if value is None else _first_mismatch(value, schema.schema, place)
    raise TypeError(f"no such schema: {schema!r}")


def _first_wrong_key(value, schema, place):
    if not isinstance(value, dict):
        return place, "an object", value
    for key, each in schema.items():
        below = f"{place}.{key}" if place else key
        if key not in value:
            if isinstance(each, Optional):
                continue
            return place, f"an object with {key!r}", sorted(map(str, value))
        wrong = _first_mismatch(value[key], each, below)
        if wrong:
            return wrong
    return None


def _wrong_number(value, schema, low, high, place):
    kinds = (int,) if isinstance(schema, Int) else (int, float)
    noun = "an integer" if isinstance(schema, Int) else "a number"
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:
        return None
    limits = [f"at least {low:g}"] * (low != -math.inf) + [f"at most {high:g}"] * (high != math.inf)
    return place, " ".join([noun, *(["of"] if limits else []), " and ".join(limits)]).strip(), value


def is_file_name(name: str) -> bool:
    """Whether a string names a file without leaving the folder, on any system."""
    return name not in ("", ".", "..") and not any(
        letter in "/\\:" or ord(letter) < 32 or ord(letter) == 127 for letter in name
    )


def _shorten(value, width=60):
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)
    text = repr(value)[: width + 1] if isinstance(value, str) else text
    return text if len(text) <= width else f"{text[:width]}…"
