"""Output of commands: results on standard output, messages on standard error, in any encoding.

If the reader of standard output stops early (`| head -1`), or its disk is full, the command continues: the rest of the
output is dropped, and files are written. A full disk is reported at the end.
"""

import argparse
import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from retinaface_tf.common.text import UNPRINTABLE, printable

_failures: dict[str, OSError] = {}  # name of a standard stream -> why it took no more


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM or SIGHUP: handled as Ctrl-C is, with its own exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def console() -> Iterator[None]:
    """Prepare the standard streams and signals for a command, and restore them."""
    _failures.clear()
    before = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            before.append(stream)
            stream.reconfigure(errors="backslashreplace")
    errors = sys.stderr
    sys.stderr = _Lossy(errors)
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for word in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, word, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                handlers[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _flush("stdout")
        sys.stderr = errors
        for stream in before:
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="strict")


class _Lossy:
    """Standard error for code that prints by itself, such as a progress bar: what it can't take ends no run."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            _drop(self.stream, "stderr", error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            _drop(self.stream, "stderr", error)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 128 plus the signal's number for another signal."""
    return 128 + interrupt.number if isinstance(interrupt, Terminated) else 130


def failed_output() -> OSError | None:
    """Why writing to standard output failed, if this is an error: a full disk, but not a closed pipe."""
    return _failures.get("stdout")


def say(text: str) -> None:
    """Print lines on standard output without tearing a progress bar."""
    _print(text + "\n", "stdout")


def complain(line: str) -> None:
    """Print one line on standard error, with the program's name before it."""
    _print(f"retinaface-tf: {' '.join(line.split())}\n", "stderr")


def note(line: str) -> None:
    """Print one line on standard error as it is: what a command is doing."""
    _print(f"{line}\n", "stderr")


class StandardOutput:
    """Standard output as a text file, written like `say`."""

    def write(self, text: str) -> int:
        _print(text, "stdout")
        return len(text)


def say_json(text: str) -> None:
    """Print JSON text on standard output; what its encoding lacks is written as JSON's own escapes."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        pattern = UNPRINTABLE
    except (UnicodeEncodeError, LookupError):
        pattern = re.compile("[^\x00-\x7e]")
    _print(pattern.sub(_json_escape, text), "stdout")


def _json_escape(match: re.Match[str]) -> str:
    if match[0] in "\n\t":  # between the values
        return match[0]
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def report(args: argparse.Namespace, result: Any, text: str, *, is_table: bool = False) -> None:
    """Print the text, or with `--json -` the JSON in its place; with `--json FILE` write that as well.

    Args:
        args: With `json` and, for most commands, `quiet`.
        result: JSON-ready.
        text: For people. `--quiet` leaves it out, unless it is a table.
        is_table: Whether the text is what the command is for, not a summary of what was written.
    """
    from retinaface_tf.common.files import atomic_write

    encoded = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if args.json == "-":
        say_json(encoded)
        return
    if args.json:
        with atomic_write(Path(args.json)) as file:
            file.write(encoded)
    if text and (is_table or not getattr(args, "quiet", False)):
        say(text)


@contextmanager
def progress(total: int | None, unit: str, *, quiet: bool) -> Iterator[Any]:
    """A progress bar on standard error with at most 100 columns; none with `quiet`."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, file=sys.stderr, disable=quiet) as bar:
        yield bar


def _print(text: str, name: str) -> None:
    stream = getattr(sys, name)
    if stream is None or name in _failures:
        return
    tqdm = sys.modules.get("tqdm")
    with tqdm.tqdm.external_write_mode(file=stream) if tqdm else nullcontext():
        try:
            stream.write(printable(text, keep="\n\t"))
            stream.flush()
        except OSError as error:
            _drop(stream, name, error)


def _flush(name: str) -> None:
    stream: IO[str] | None = getattr(sys, name)
    if stream is None:
        return
    try:
        stream.flush()
    except OSError as error:
        _drop(stream, name, error)


def _drop(stream: IO[str], name: str, error: OSError) -> None:
    """Discard further output of a stream and its buffer, so that it does not fail again at exit."""
    if error.errno not in (errno.EPIPE, errno.EINVAL):  # EINVAL is what Windows says of a reader that has gone
        _failures[name] = OSError(error.errno, error.strerror, f"standard {'output' if name == 'stdout' else 'error'}")
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
