"""`retinaface-tf completion`: print a completion script for a shell."""

import argparse
from typing import Any

from retinaface_tf.cli.options import children, preset_names
from retinaface_tf.cli.output import say
from retinaface_tf.common.imports import install_hint, require

EXAMPLES = f"""examples:
  retinaface-tf completion bash > ~/.local/share/bash-completion/completions/retinaface-tf
  retinaface-tf completion zsh > ~/.zfunc/_retinaface-tf
  retinaface-tf completion tcsh > ~/.retinaface-tf.tcsh

This command needs the extra `completion`. The script itself needs nothing.
{install_hint("completion")}
"""
SHELLS = ("bash", "zsh", "tcsh")
FILES = ("FILE", "PATH", "PHOTO", "INPUT", "OUT", "ARTIFACT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the script of the shell that `args` name, and return the exit code."""
    shtab = require("shtab", "completion", "completion")
    from retinaface_tf.cli.main import build_parser

    parser = build_parser()
    words = " ".join(preset_names())
    _mark(parser, shtab, {"bash": "_retinaface_presets", "zsh": f"({words})", "tcsh": ""})
    preamble = {"bash": f'_retinaface_presets() {{ compgen -W "{words}" -- "$1"; }}'}
    say(shtab.complete(parser, args.shell, preamble=preamble))
    return 0


def _mark(parser: argparse.ArgumentParser, shtab: Any, names: dict[str, str]) -> None:
    """Mark every option that takes a file, a folder or a preset."""
    for action in parser._actions:
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif "--preset" in action.option_strings:
            action.complete = names  # type: ignore[attr-defined]
    for child in children(parser).values():
        _mark(child, shtab, names)
