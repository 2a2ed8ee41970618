"""The words of `retinaface-tf export ...`: one module each.

Each has `HELP`, `add_arguments(parser)` and `run(args) -> int`, as those of `retinaface-tf evaluate`.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from retinaface_tf.cli.pages import add_command

KINDS = ("saved_model", "tflite", "onnx", "verify")


def mount(subparsers: Any) -> None:
    """Add all of `KINDS` to argparse's sub-parsers; each sets `run` as the parser's default."""
    for name in KINDS:
        add_command(subparsers, name, command(name))


def command(name: str) -> ModuleType:
    """The module of one of `KINDS`."""
    return import_module(f"retinaface_tf.cli.export_{name}")
