"""Names that move to `options` and `output`."""

import argparse
from typing import Any

from retinaface_tf.cli import output
from retinaface_tf.cli.options import add_result, children, finish

__all__ = ["add_result_options", "children", "finish", "report"]


def add_result_options(parser: Any, *, quiet: str = "", may_be_bare: bool = False) -> None:
    add_result(parser)


def report(args: argparse.Namespace, result: Any, text: str, *, result_is_all: bool = False) -> None:
    output.report(args, result, text, is_table=result_is_all)
