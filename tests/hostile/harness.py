"""Try hostile inputs and count what held.

An attack holds if the call returns a right result, or ends in one of our one-line errors, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "retinaface_tf" / "samples" / "astronaut.jpg"
SECONDS = 60  # that an input may take, also on a busy machine
MEGABYTES = 1000  # by which an input may make the process grow
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f]")
ENDS = (ValueError, OSError, ImportError)  # of a call: what the command line prints as one line


@dataclass
class Row:
    """One kind of attack: how many inputs were tried, and what did not hold."""

    kind: str
    tried: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def held(self) -> int:
        return self.tried - len(self.faults)

    def fault(self, what: str, why: str) -> None:
        self.faults.append(f"{what}: {why}")

    def attempt(self, what: str, call: Callable[[], Any], check: Callable[[Any], object] | None = None) -> None:
        """Make a call, and check what it returns: `check` raises AssertionError for what is wrong."""
        self.tried += 1
        before = memory()
        try:
            with time_limit(), quiet():
                result = call()
                if check is not None:
                    check(result)
        except ENDS as error:
            if isinstance(error, UnicodeError) or UNPRINTABLE.search(str(error).replace("\t", " ")):
                self.fault(what, f"{type(error).__name__}, no line of ours: {str(error)[:200]!r}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.fault(what, f"{type(error).__name__} at {place.filename}:{place.lineno}: {str(error)[:200]!r}")
        if (grown := memory() - before) > MEGABYTES:
            self.fault(what, f"the process grew by {grown} MB")


def memory() -> int:
    """The most memory that this process has had so far, in MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise TimeoutError, as no error of ours, if a block takes too long. In the main thread of Unix alone."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(*_: object) -> None:
        raise RuntimeError(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Python's warnings off the terminal."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def command(row: Row, *words: Any, codes: tuple[int, ...] = (0, 1, 2)) -> tuple[int, str, str]:
    """Run a command in this process: (code, standard output, standard error). Faults go into the row."""
    from retinaface_tf.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    what = " ".join(str(word)[:40] for word in words)[:160]
    row.tried += 1
    code, before = -1, len(row.faults)
    try:
        with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        row.fault(what, f"{type(error).__name__} at {place.filename}:{place.lineno}: {str(error)[:200]!r}")
    lines = err.getvalue().strip().splitlines()
    if len(row.faults) == before:
        if code not in codes:
            row.fault(what, f"exit code {code}: {lines[-1:]}")
        elif code and not lines:
            row.fault(what, f"exit code {code} without a line")
        elif any(len(line) > 2200 or "Traceback" in line for line in lines):
            row.fault(what, f"said {lines[-1][:200]!r}")
    return code, out.getvalue(), err.getvalue()


def leftovers(folder: Path) -> list[str]:
    """Files that a write left half-done below a folder."""
    return [path.name for path in folder.rglob(".rf-*")]


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A new, empty current folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes with some replaced, cut off, doubled, or in another encoding."""
    kind = chance.randrange(8)
    result = bytearray(content)
    if kind == 0:
        return bytes(result[: chance.randrange(len(result) + 1)])
    if kind == 1:
        start = chance.randrange(len(result) + 1)
        return bytes(result[:start] + result[start : start + chance.randrange(1, 400)] * 2 + result[start:])
    if kind == 2:
        return chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0" * 40)) + content
    if kind == 3:
        text = content.decode("utf-8", "replace")
        return text.encode(
            chance.choice(("utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp037", "utf-7", "latin-1")), "replace"
        )
    for _ in range(chance.choice((1, 2, 8, 64))):
        if result:
            result[chance.randrange(len(result))] = chance.randrange(256)
    return bytes(result)


NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1e308, -1e308, 1e-320, 2**31, 2**63, -(2**63), 10**400, -(10**400), 0.5),
    *(float("nan"), float("inf"), -float("inf"), "", "\0", "../../etc/passwd", "/etc/passwd", "C:/x", "a\x1b[31mb"),
    *("=cmd()", "-x", ".", "..", "x" * 5000, "\ud800", "\u202e", "１", "1e400", "nan", "0x10", "1_0", [], {}, [[]]),
    *([None], {"a": None}, [1, 2], [[1, 2, 3, 4]], ["x"], {"": {}}, [0] * 10_000),
)


def mutated(value: Any, chance: random.Random) -> Any:
    """A JSON value with one to three places changed: replaced, removed, doubled or renamed."""
    value = _copy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return _copy(chance.choice(NASTY))
        holder, key = chance.choice(places)
        kind = chance.randrange(10)
        if kind < 6:
            holder[key] = _copy(chance.choice(NASTY))
        elif kind == 6:
            del holder[key]
        elif kind == 7 and isinstance(holder, dict):
            holder[chance.choice(("", "\0", "__class__", "x" * 300, f"{key} "))] = holder.pop(key)
        elif kind == 8:
            for _ in range(chance.choice((3, 70, 150))):
                holder[key] = chance.choice(([holder[key]], {"a": holder[key]}))
        elif isinstance(holder, list):
            holder.insert(key, _copy(holder[key]))
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list | tuple) else value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pending = [value]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            yield one, key
            pending.append(one[key])


def as_json(value: Any, chance: random.Random) -> bytes:
    """JSON text of a mutated value; sometimes damaged, or nested without end."""
    import json

    kind = chance.randrange(12)
    if kind == 0:
        opening = chance.choice(("[", '{"a":', '[{"a":[', '{"shards":['))
        return (opening * chance.choice((1000, 100_000))).encode()
    try:
        content = json.dumps(value).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):
        return b"[" * 100_000
    return damaged(content, chance) if kind < 3 else content
