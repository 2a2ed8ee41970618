"""The words of `retinaface-tf evaluate ...` and `retinaface-tf thresholds`: one module each, imported when asked for.

Each module has `HELP`, `add_arguments(parser)` and `run(args) -> int`. Bad input is a ValueError or an OSError with one
line; whoever calls `run` prints it.
"""

from importlib import import_module
from types import ModuleType

EVALUATIONS = ("widerface", "photos", "fddb", "landmarks", "verification", "coco", "robustness")


def command(name: str) -> ModuleType:
    """The module of one command; `name` is one of `EVALUATIONS`, or `thresholds`."""
    if name not in (*EVALUATIONS, "thresholds"):
        raise ValueError(f"unknown evaluation {name!r}. Expected one of {[*EVALUATIONS, 'thresholds']}")
    return import_module(f"retinaface_tf.cli.{name}" if name == "thresholds" else f"retinaface_tf.cli.evaluate_{name}")
