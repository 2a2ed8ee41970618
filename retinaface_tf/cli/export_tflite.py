"""`retinaface-tf export tflite`: one file for phones, browsers and small machines."""

import argparse
from pathlib import Path

from retinaface_tf.cli.export_options import add_export_arguments, check_file, load_model, write_artifact
from retinaface_tf.cli.output import note
from retinaface_tf.common.imports import import_tensorflow

EXAMPLES = """examples:
  retinaface-tf export tflite --preset mobilenet025_wider --output faces.tflite
  retinaface-tf export tflite --model m.keras --output m.tflite --quantize int8 --calibration photos/
  retinaface-tf export tflite --preset mobilenet025_wider --size 320x320 --output fixed.tflite --quantize fp16 \\
      --score-threshold 0.3 --max-detections 100 --overwrite
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser)
    parser.add_argument(
        "--quantize",
        choices=("fp16", "dynamic", "int8"),
        help="smaller weights: fp16, dynamic or int8; default: 32-bit floats",
    )
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        type=Path,
        help="folder of at least 8 photos like yours; needed for int8",
    )


def run(args: argparse.Namespace) -> int:
    """Export as the parsed `args` say, and return the exit code."""
    if args.calibration is not None and args.quantize != "int8":
        raise ValueError("--calibration is only for --quantize int8")
    options = check_file(args, ".tflite")
    if args.quantize == "int8":
        import_tensorflow()
        from retinaface_tf.export.int8 import require_photos

        require_photos(args.calibration)  # before the model is built
    model = load_model(args)
    from retinaface_tf.export.int8 import read_calibration_photos
    from retinaface_tf.export.tflite import export_tflite

    photos = None
    if args.quantize == "int8":
        fill = [round(mean) for mean in model.pixel_mean]
        photos = read_calibration_photos(args.calibration, options.size, fill)
        for line in (*photos.notes, str(photos)):
            note(line)
    return write_artifact(args, export_tflite, model, options, quantize=args.quantize, calibration=photos)
