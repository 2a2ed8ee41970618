"""`retinaface-tf export onnx`: one file for ONNX Runtime, OpenVINO and TensorRT."""

import argparse
from importlib.util import find_spec

from retinaface_tf.cli.export_options import (
    add_export_arguments,
    check_output_file,
    convert,
    export_options,
    load_model,
    report_artifact,
)
from retinaface_tf.common.imports import install_hint

EXAMPLES = """examples:
  retinaface-tf export onnx --preset mobilenet025_wider --output faces.onnx
  retinaface-tf export onnx --model runs/first/model.keras --output mine.onnx --size 640x480 --overwrite
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    options = export_options(args)
    check_output_file(args, ".onnx")
    if find_spec("tf2onnx") is None:  # answered before TensorFlow starts
        raise ImportError(f"exporting to ONNX needs tf2onnx. Install it: {install_hint('onnx')}")
    model = load_model(args)
    from retinaface_tf.export.onnx import export_onnx

    convert(export_onnx, model, args.output, options)
    return report_artifact(args, args.output)
