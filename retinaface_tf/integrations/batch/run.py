"""Distribute parts of photos over Ray workers, and write Parquet files of faces."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinaface_tf.common.files import remove_leftovers
from retinaface_tf.common.imports import install_hint, suppress_stderr
from retinaface_tf.common.types import PathLike
from retinaface_tf.integrations.batch.sources import Part, find_parts
from retinaface_tf.integrations.batch.worker import Worker, open_folder, parts_done, photos_done


@dataclass
class BatchPlan:
    """The remaining parts of a run, and the finished ones.

    Attributes:
        parts: The parts that are to be done.
        done: Photo -> whether it failed, of the photos whose rows are there.
        complaints: One line for each input without a photo.
        notes: One line for each folder in which files were passed over.
    """

    parts: list[Part]
    done: dict[str, bool] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_batch(
    inputs: Sequence[str],
    folder: PathLike,
    settings: dict[str, Any],
    *,
    part_size: int | None = None,
    workers: int = 1,
) -> BatchPlan:
    """Begin or resume a run in a folder.

    Args:
        inputs: Photos, folders, patterns, Parquet or TFRecord files.
        folder: Folder of the rows.
        settings: JSON-ready dict of all that the rows depend on.
        part_size: Photos of a part of photo files; `None` for what gives every worker some parts.
        workers: Number of workers.

    Raises:
        ValueError: No photo, or the folder holds rows of other settings.
        OSError: The folder can't be written.
    """
    open_folder(folder, settings)
    done = photos_done(folder)
    parts, complaints, notes = find_parts(inputs, part_size, done, skip=folder, workers=workers)
    there = {path.name for path in parts_done(folder)}
    if not parts and not done:
        raise ValueError("; ".join([*complaints, "no photo found"]))
    return BatchPlan([part for part in parts if part.name not in there], done, complaints, notes)


def run_batch(
    plan: BatchPlan,
    folder: PathLike,
    worker: dict[str, Any],
    *,
    workers: int,
    address: str | None = None,
    progress: Callable[[dict[str, int]], object] | None = None,
) -> dict[str, int]:
    """Process the parts of a plan of `plan_batch`, in the same folder.

    Args:
        worker: Arguments of `worker.Worker`, apart from its `output`.
        workers: Largest number of workers.
        address: Address of a Ray cluster, or `None` for this machine.
        progress: Called with the numbers of each part as it ends.

    Returns:
        Dict of the numbers of `photos`, `faces` and `errors` of the parts.

    Raises:
        ValueError: One line: a part can't be done at all.
    """
    total = {"photos": 0, "faces": 0, "errors": 0}
    worker = {**worker, "output": str(Path(folder))}
    if plan.parts:
        require_ray()
        try:
            for result in run_parts(plan.parts, worker, workers=workers, threads=worker["threads"], address=address):
                for name in total:
                    total[name] += result[name]
                if progress:
                    progress(result)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    remove_leftovers(folder, again=True)  # of workers that were killed while they wrote
    return total


def run_parts(
    parts: list[Part], worker: dict[str, Any], *, workers: int, threads: int, address: str | None = None
) -> Iterator[dict[str, int]]:
    """Process the parts that are not finished; arguments as in `run_batch`. `threads` are the cores of each worker.

    Yields:
        dict of the numbers of photos, faces and errors of each part, and the `pid` of its worker, as they end.

    Raises:
        ImportError: if Ray is missing; the message names the extra.
        RuntimeError: one line, if a part can't be done at all, as where a column is missing or the disk is full.
    """
    ray = require_ray()
    own = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    with suppress_stderr():  # where Ray says how little it will say
        ray.init(address, **({"num_cpus": workers * threads, **own} if address is None else {}))
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        items = [{"kind": part.kind, "paths": list(part.paths), "group": part.group} for part in parts]
        results = ray.data.from_items(items, override_num_blocks=len(items)).map(
            RemoteWorker,
            fn_constructor_kwargs=worker,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=threads,
        )
        for result in results.iter_rows():
            if result["failure"]:
                raise RuntimeError(result["failure"])
            yield result
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray stopped ({_line(error)}). Run the same command again to resume") from error
    finally:
        ray.shutdown()


class RemoteWorker:
    """A `Worker` for Ray Data: created in each process, called with rows.

    What goes wrong comes back as a line, "failure": Ray would wrap it into a page of its own.
    """

    def __init__(self, **arguments: Any) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self.make: Callable[[], Any] = lambda: Worker(**arguments)
        self.worker: Any = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        part = Part(item["kind"], tuple(str(path) for path in item["paths"]), int(item["group"]))
        numbers, failure = {"photos": 0, "faces": 0, "errors": 0}, ""
        try:
            self.worker = self.worker or self.make()
            numbers = self.worker(part)
        except Exception as error:
            failure = _line(error)
        return {**numbers, "failure": failure, "pid": os.getpid()}


def _line(error):
    lines = str(error).strip().splitlines() or [""]
    known = isinstance(error, (ValueError, OSError, ImportError))
    return lines[0] if known else f"{type(error).__name__}: {lines[0][:300]}"


def require_ray() -> Any:
    """Ray, ready for `run_parts`; `ImportError` with the name of the extra where it is missing."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a user's run leaves their machines
    try:
        import pyarrow.parquet  # noqa: F401
        import ray
        import ray.data
    except ImportError:
        raise ImportError(f"batch runs need Ray. Install it: {install_hint('batch')}") from None
    return ray
