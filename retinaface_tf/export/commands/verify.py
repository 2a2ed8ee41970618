"""`retinaface-tf export verify`: does this artifact find what the model in Python finds?"""

from pathlib import Path

from retinaface_tf.export.commands import common

HELP = "run an artifact beside the Python model on real photos and print a parity certificate"


def add_arguments(parser):
    parser.add_argument("artifact", metavar="ARTIFACT", type=Path, help="SavedModel folder, .tflite or .onnx")
    common.add_model_arguments(parser, required=False)


def run(args):
    """Verify as the parsed `args` say, and return the exit code: 1 if the artifact differs too much."""
    raise ValueError("not there yet")
