"""`retinaface-tf export onnx`: one file for ONNX Runtime, OpenVINO and TensorRT."""

import argparse
from importlib.util import find_spec

from retinaface_tf.cli.export_options import add_export_arguments, check_file, load_model, write_artifact
from retinaface_tf.common.imports import install_hint

EXAMPLES = """examples:
  retinaface-tf export onnx --preset mobilenet025_wider --output faces.onnx
  retinaface-tf export onnx --model runs/first/model.keras --output mine.onnx --size 640x480 --overwrite
  retinaface-tf export onnx --preset mobilenet025_wider --output faces.onnx --optional-inputs
      other programs can then pass thresholds in each call
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser)
    parser.add_argument(
        "--optional-inputs",
        action="store_true",
        help="let other programs pass thresholds and windows in each call; ONNX Runtime then prints four warnings",
    )


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    options = check_file(args, ".onnx")
    if find_spec("tf2onnx") is None:  # answered before TensorFlow starts
        raise ImportError(f"exporting to ONNX needs tf2onnx. Install it: {install_hint('onnx')}")
    model = load_model(args)
    from retinaface_tf.export.onnx import export_onnx

    return write_artifact(args, export_onnx, model, options, optional_inputs=args.optional_inputs)
