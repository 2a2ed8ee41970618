"""The words of `retinaface-tf export ...`: one module each.

Each has `HELP`, `add_arguments(parser)` and `run(args) -> int`, as those of `retinaface-tf evaluate`.
"""

from importlib import import_module
from typing import Any

KINDS = ("saved_model", "tflite", "onnx", "verify")


def mount(subparsers: Any) -> None:
    """Add all of `KINDS` to argparse's sub-parsers; each sets `run` as the parser's default."""
    for name in KINDS:
        module = import_module(f"{__name__}.{name}")
        parser = subparsers.add_parser(
            name, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + "."
        )
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)
