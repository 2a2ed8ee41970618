"""The command `retinaface-tf`: words in, one call, one printed result.

No subcommand imports TensorFlow before it has to: `--help` and a mistyped option answer at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import retinaface_tf
from retinaface_tf.cli import (
    batch,
    completion,
    convert_custom,
    convert_weights,
    convert_widerface,
    detect,
    export,
    inspect,
    label,
    label3d,
    train,
)
from retinaface_tf.cli import evaluate as evaluation
from retinaface_tf.cli.pages import add_command, finish
from retinaface_tf.common.files import require_writable
from retinaface_tf.common.imports import tensorflow_needed

EXAMPLES = """examples:
  retinaface-tf detect photo.jpg --output out/
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/
  retinaface-tf train --preset mobilenet025 --data shards/ --output runs/first
  retinaface-tf export tflite --preset mobilenet025_wider --size 640x480 --output faces.tflite

`retinaface-tf COMMAND --help` has the options and examples of each"""
GROUP_EXAMPLES = {
    "convert": """examples:
  retinaface-tf convert weights Resnet50_Final.pth --preset resnet50 --output resnet50.keras
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/""",
    "evaluate": """examples:
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found/
  retinaface-tf evaluate photos --preset mobilenet025_wider --images photos/ --ground-truth f.csv --detections out/""",
    "export": """examples:
  retinaface-tf export saved_model --preset mobilenet025_wider --output exported/
  retinaface-tf export verify exported/""",
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line: `argparse.ArgumentParser`, whose result has `run`, a function of itself."""
    parser = argparse.ArgumentParser(
        prog="retinaface-tf",
        description="Find every face in a photo: a box, a score and five landmarks each.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"retinaface-tf {retinaface_tf.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_command(commands, "detect", detect)
    add_command(commands, "batch", batch)
    kinds = _group(commands, "convert", "bring foreign weights and data sets into our form", "what to convert")
    add_command(kinds, "weights", convert_weights)
    add_command(kinds, "widerface", convert_widerface)
    add_command(kinds, "custom", convert_custom)
    add_command(commands, "label", label)
    add_command(commands, "label3d", label3d)
    add_command(commands, "train", train)
    add_command(commands, "inspect", inspect)
    kinds = _group(commands, "evaluate", "measure a detector as this field reports it", "what to measure")
    for kind in evaluation.EVALUATIONS:
        add_command(kinds, kind, evaluation.command(kind))
    kinds = _group(commands, "export", "a model as a file that runs elsewhere, with the proof of it", "what to make")
    for kind in export.KINDS:
        add_command(kinds, kind, export.command(kind))
    add_command(commands, "thresholds", evaluation.command("thresholds"))
    add_command(commands, "completion", completion)
    finish(parser)
    return parser


def _group(commands, name, summary, title):
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.epilog = GROUP_EXAMPLES[name]
    return parser.add_subparsers(title=title, metavar="KIND", required=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected failure is one line on standard error."""
    args = build_parser().parse_args(argv)
    try:
        if getattr(args, "json", None) not in (None, "-"):
            require_writable(args.json)  # before the work rather than after
        with tensorflow_needed("this command"):
            return args.run(args)
    except KeyboardInterrupt:
        print("retinaface-tf: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        line = str(error)
        if isinstance(error, OSError) and error.filename:
            line = f"{error.filename}: {error.strerror}"
        print(f"retinaface-tf: {' '.join(line.split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
