"""`retinaface-tf export saved_model`: a folder for TensorFlow Serving and for `retinaface_tf.load`."""

import argparse

from retinaface_tf.cli.export_options import add_export_arguments, export_options, load_model, write_artifact
from retinaface_tf.cli.output import note

EXAMPLES = """examples:
  retinaface-tf export saved_model --preset mobilenet025_wider --output exported/     writes exported/1
  retinaface-tf export saved_model --model runs/first/model.keras --output exported/ --score-threshold 0.7 --json -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser, replaced="the newest version", any_size=True)


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    options = export_options(args)
    if options.size is not None:
        raise ValueError("a SavedModel takes images of any size: leave --size out")
    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    from retinaface_tf.export.saved_model import can_write_warm_up, export_saved_model, next_version

    next_version(args.output, replace=args.overwrite)
    model = load_model(args)
    if not can_write_warm_up():
        note("no warm-up requests for TensorFlow Serving were written. To add them: pip install tensorflow-serving-api")
    return write_artifact(args, export_saved_model, model, options, replace=args.overwrite)
