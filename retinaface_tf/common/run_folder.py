"""The output folder of one run. It stores the settings, and the run can only be resumed with the same settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retinaface_tf.common.files import atomic_write, fcntl
from retinaface_tf.common.json_files import read_json
from retinaface_tf.common.text import printable
from retinaface_tf.common.types import PathLike

SETTINGS_FILE = "run.json"


def begin_or_resume(
    folder: PathLike,
    settings: dict[str, Any],
    *,
    file: str = SETTINGS_FILE,
    has_results: bool | None = None,
    may_change: Collection[str] = (),
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> bool:
    """Begin a run in a folder, or resume the run of the same settings that is there.

    Args:
        folder: Folder of the run; made if need be.
        settings: JSON-ready dict of all that the results depend on. Nested names are told as `schedule.epochs`.
        file: Name of the file in the folder that keeps the settings.
        has_results: Whether the folder holds results. If it does, they need a settings file; if it does not, the
            settings of an earlier start that left nothing are replaced. `None`: a settings file alone binds.
        may_change: Names, nested ones with dots, whose values may differ from the earlier ones; the new ones are kept.
        complete: Function that adds to earlier settings what the version that wrote them did not have yet; it raises
            ValueError for what are no such settings.

    Returns:
        Whether the run is resumed.

    Raises:
        ValueError: The folder was begun with other settings, or holds results of unknown ones.
        OSError: The folder can't be read or written.
    """
    folder = Path(folder)
    path = folder / file
    settings = json.loads(json.dumps(settings))
    if has_results is not False and path.exists():
        stored = before = read_json(path, dict)
        if complete:
            try:
                before = complete(before)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        refuse_other_settings(folder, before, settings, may_change)
        if stored != settings:
            _write(path, settings)
        return True
    if has_results:
        raise ValueError(f"{folder}: contains results, but not {file} with their settings. Choose an empty folder")
    _write(path, settings)
    return False


def refuse_other_settings(
    place: PathLike,
    before: dict[str, Any],
    settings: dict[str, Any],
    may_change: Collection[str] = (),
    advice: str = "Choose another folder, or delete this one",
) -> None:
    """Compare the settings of the results in a folder or file with those of a run that is to add to them.

    Raises:
        ValueError: One line: they differ in more than `may_change`.
    """
    changed = [
        f"{printable(name)} was {old!r}, now {new!r}"
        for name, old, new in differences(before, json.loads(json.dumps(settings)))
        if name not in may_change and not any(name.startswith(f"{free}.") for free in may_change)
    ]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ValueError(f"{place}: contains results of another run: {changed[0]}{more}. {advice}")


@contextmanager
def only_process(folder: PathLike) -> Iterator[None]:
    """Hold a folder for this process, until the block or the process ends; file systems without locks hold nothing.

    Raises:
        ValueError: Another process holds it: both would write the same files.
    """
    if fcntl is None:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{folder}: another process is writing into it. Wait, or choose another folder"
                ) from None
        yield
    finally:
        os.close(handle)


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, value before, value now) of all that differs in two nested dicts; `None` where there is no such name."""
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new


def _write(path, settings):
    with atomic_write(path) as file:  # whole or not at all: another process may start on the same folder right now
        file.write(json.dumps(settings, indent=1) + "\n")
