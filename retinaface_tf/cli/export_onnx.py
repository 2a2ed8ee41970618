"""`retinaface-tf export onnx`: one file for ONNX Runtime, OpenVINO and TensorRT."""

import argparse
from importlib.util import find_spec

from retinaface_tf.cli import export_options as common
from retinaface_tf.export.options import DYNAMIC_MAX_DETECTIONS

HELP = "an ONNX file, any image size and batch, with the non-maximum suppression inside"
EXAMPLES = """examples:
  retinaface-tf export onnx --preset mobilenet025_wider --output faces.onnx
  retinaface-tf export onnx --model runs/first/model.keras --output mine.onnx --size 640x480 --overwrite
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_export_arguments(parser, max_detections=DYNAMIC_MAX_DETECTIONS)


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    options = common.export_options(args)
    common.check_output_file(args, ".onnx")
    if find_spec("tf2onnx") is None:  # answered before TensorFlow starts
        raise ImportError("exporting to ONNX needs tf2onnx. Install it: pip install 'retinaface-tf[onnx]'")
    model = common.load_model(args)
    from retinaface_tf.export.onnx import export_onnx

    common.convert(export_onnx, model, args.output, options)
    return common.report(args, args.output)
