"""`retinaface-tf convert widerface`: convert WIDER FACE to TFRecord shards."""

import argparse

from retinaface_tf.cli.convert_options import add_shared_arguments, convert, describe_source

EXAMPLES = """examples:
  retinaface-tf convert widerface --images WIDER_train/images --annotations label.txt --output shards/train
  retinaface-tf convert widerface --images WIDER_val/images --annotations wider_face_val.mat --output shards/val
  retinaface-tf convert widerface --images WIDER_train/images --annotations label.txt --output shards/ --split 0.9 \\
      --drop-invalid --no-decode         leave out invalid faces; read only the headers of the photos

Run the same command again to resume an interrupted conversion.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="folder that contains 0--Parade and the other events"
    )
    parser.add_argument(
        "--annotations",
        required=True,
        metavar="FILE",
        help="RetinaFace's label.txt (with landmarks), wider_face_*_bbx_gt.txt or wider_face_*.mat",
    )
    parser.add_argument("--drop-invalid", action="store_true", help="leave out faces that are flagged as invalid")
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.read import read_annotations

    annotations = read_annotations(args.annotations, kind="widerface")
    return convert(args, annotations, describe_source("widerface", args.annotations, args.images), args.drop_invalid)
