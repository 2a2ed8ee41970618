"""What all commands share: the form of their help pages, the same words for the same options, the printed result."""

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

EXIT_CODES = """exit codes: 0 done, 1 done in part or judged against, 2 unusable options or input, 130 interrupted"""


def add_command(subparsers: Any, name: str, module: ModuleType, summary: str | None = None) -> None:
    """Give argparse's `subparsers` the command of a module: `HELP`, `EXAMPLES`, `add_arguments(parser)`, `run(args)`.

    Args:
        subparsers: what `add_subparsers` returned.
        name: str, the word.
        module: the module.
        summary: str, one line without a full stop; `None` for the module's `HELP`.
    """
    summary = summary or module.HELP
    parser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.epilog = module.EXAMPLES
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def finish(parser: argparse.ArgumentParser) -> None:
    """Give a parser and all below it their exit codes, and keep the line breaks of their examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    epilog = parser.epilog or ""
    if "exit codes:" not in epilog:
        parser.epilog = f"{epilog.rstrip()}\n\n{EXIT_CODES}".lstrip()
    for child in children(parser).values():
        finish(child)


def children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands: dict word -> parser, empty where it has none."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(groups[0].choices) if groups else {}


def add_result_options(
    parser: Any, *, quiet: str = "no progress bar and no summary", may_be_bare: bool = False
) -> None:
    """`--json` and `--quiet`, as `report` and the progress bars take them.

    Args:
        parser: argparse parser or group of one.
        quiet: str, what `--quiet` leaves out.
        may_be_bare: bool. `--json` without a value is standard output, too: for commands that had it so.
    """
    usual: dict[str, Any] = {"nargs": "?", "const": "-"} if may_be_bare else {}
    text = "write the result as JSON; - for standard output"
    parser.add_argument("--json", metavar="FILE", help=text, **usual)
    parser.add_argument("--quiet", action="store_true", help=quiet)


def report(args: argparse.Namespace, result: Any, text: str, *, result_is_all: bool = False) -> None:
    """Print the text, or with `--json -` only the JSON; with `--json FILE` write that as well.

    Args:
        args: with `json` and, maybe, `quiet`.
        result: what JSON can hold.
        text: str, for people. `--quiet` leaves it out, unless it is what the command is for.
        result_is_all: bool. The text is what the command is for, such as a table.
    """
    from retinaface_tf.common.files import atomic_write

    encoded = json.dumps(result, indent=1, allow_nan=False)
    if args.json == "-":
        print(encoded)
        return
    if args.json:
        with atomic_write(Path(args.json)) as file:
            file.write(encoded + "\n")
    if text and (result_is_all or not getattr(args, "quiet", False)):
        print(text)
