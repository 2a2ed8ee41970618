"""`retinaface-tf export saved_model`: a folder for TensorFlow Serving and for `retinaface_tf.load`."""

import argparse
import sys

from retinaface_tf.cli import export_options as common
from retinaface_tf.export.options import DYNAMIC_MAX_DETECTIONS

HELP = "a TensorFlow SavedModel, a numbered version below --output, ready for TensorFlow Serving"
EXAMPLES = """examples:
  retinaface-tf export saved_model --preset mobilenet025_wider --output exported/     exported/1
  retinaface-tf export saved_model --model runs/first/model.keras --output exported/ --json -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_export_arguments(parser, max_detections=DYNAMIC_MAX_DETECTIONS, force="replace the newest version")


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    options = common.export_options(args)
    if options.size is not None:
        raise ValueError("a SavedModel takes images of any size: leave --size out")
    from retinaface_tf.export.versions import next_version

    next_version(args.output, replace=args.force)
    model = common.load_model(args)
    from retinaface_tf.export.saved_model import export_saved_model

    path = common.convert(export_saved_model, model, args.output, options, replace=args.force)
    from retinaface_tf.export import warm_up

    if not warm_up.can_write():
        line = "without warm-up requests for TensorFlow Serving: pip install 'retinaface-tf[serving]'"
        print(line, file=sys.stderr)
    return common.report(args, path)
