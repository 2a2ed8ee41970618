"""Run a detector over photos beyond counting: the parts spread over workers, Parquet files of faces out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinaface_tf.common.files import remove_leftovers
from retinaface_tf.common.types import PathLike
from retinaface_tf.integrations.batch import output, ray_run
from retinaface_tf.integrations.batch.sources import Part, find_parts


@dataclass
class BatchPlan:
    """What a run has to do, and what an earlier one of the same settings has done.

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
    model: str,
    settings: dict[str, Any],
    *,
    part_size: int | None = None,
    workers: int = 1,
) -> BatchPlan:
    """Begin or resume a run in a folder.

    Args:
        inputs: Photos, folders, patterns, Parquet or TFRecord files.
        folder: Folder of the rows.
        model: What `retinaface_tf.load` takes.
        settings: JSON-ready dict of all that the rows depend on.
        part_size: Photos of a part of photo files; `None` for what gives every worker some parts.
        workers: Number of workers.

    Raises:
        ValueError: No photo, or the folder holds rows of other settings.
        OSError: The folder can't be written.
    """
    output.open_folder(folder, model, settings)
    done = output.photos_done(folder)
    parts, complaints, notes = find_parts(inputs, part_size, done, skip=folder, workers=workers)
    there = {path.name for path in output.parts_done(folder)}
    if not parts and not done:
        raise ValueError("; ".join([*complaints, "no photo to look at"]))
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
    """Do the parts of a plan.

    Args:
        plan: From `plan_batch`.
        folder: The same folder.
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
        ray_run.require_ray()
        try:
            for result in ray_run.run_parts(
                plan.parts, worker, workers=workers, threads=worker["threads"], address=address
            ):
                for name in total:
                    total[name] += result[name]
                if progress:
                    progress(result)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    remove_leftovers(folder, again=True)  # of workers that were killed while they wrote
    return total
