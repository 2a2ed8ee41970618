"""Parts spread over Ray's workers: what is there is skipped, a worker that dies is replaced and its part done again."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from retinaface_tf.common.imports import install_hint, suppress_stderr
from retinaface_tf.integrations.batch.sources import Part


def run_parts(
    parts: list[Part], worker: dict[str, Any], *, workers: int, threads: int, address: str | None = None
) -> Iterator[dict[str, int]]:
    """Do the parts that are not done.

    Args:
        parts: list of `Part`.
        worker: dict, the arguments of `Worker`.
        workers: int, at least so many processes as the cluster has room for, at most this number.
        threads: int, cores of each.
        address: of a Ray cluster, such as "auto"; `None` for this machine alone.

    Yields:
        dict of the numbers of photos, faces and errors of each part, and the `pid` of its worker, as they end.

    Raises:
        ImportError: without Ray, naming the extra.
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
        raise RuntimeError(f"Ray gave up ({_line(error)}); the same command goes on") from error
    finally:
        ray.shutdown()


class RemoteWorker:
    """A `Worker` as Ray Data wants it: made in each process, called with rows.

    What goes wrong comes back as a line, "failure": Ray would wrap it into a page of its own.
    """

    def __init__(self, **arguments: Any) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from retinaface_tf.integrations.batch.worker import Worker

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
