"""`retinaface-tf convert custom`: convert your own labeled photos to TFRecord shards."""

import argparse

from retinaface_tf.annotations import KINDS
from retinaface_tf.cli.convert_options import add_shared_arguments, convert, describe_source
from retinaface_tf.cli.evaluation_options import LABELS

EXAMPLES = """examples:
  retinaface-tf convert custom --images photos/ --annotations faces.json --output shards/     COCO
  retinaface-tf convert custom --images photos/ --annotations xml/ --output shards/           Pascal VOC
  retinaface-tf convert custom --images photos/ --annotations labels/ --output shards/        YOLO
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/      file,x1,y1,x2,y2,…
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/ --split 0.9 --classes face mask
      nine tenths of the photos to shards/train, the others to shards/validation; only faces of these two classes
  retinaface-tf convert custom --images photos/ --annotations faces.txt --kind list --output shards/ --labels upright
      a five-point list, whose labels were drawn on photos with EXIF rotation applied

docs/data.md describes the formats. Run the same command again to resume an interrupted conversion.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="folder of the photos; names in the labels are relative to it"
    )
    parser.add_argument("--annotations", required=True, metavar="PATH", help=LABELS)
    parser.add_argument(
        "--kind",
        choices=("auto", *KINDS),
        default="auto",
        help="format of the labels; default: recognized automatically",
    )
    parser.add_argument(
        "--classes", nargs="+", action="extend", metavar="NAME", help="classes that are faces; default: all"
    )
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert as the parsed `args` say, and return the exit code."""
    from pathlib import Path

    from retinaface_tf.annotations.read import guess_kind, read_annotations

    if not Path(args.images).is_dir():
        raise FileNotFoundError(f"{args.images}: no such folder; expected the folder of the photos")
    kind = guess_kind(args.annotations) if args.kind == "auto" else args.kind
    annotations = read_annotations(args.annotations, args.images, kind=kind, classes=args.classes, pixels=False)
    return convert(args, annotations.by_name(), describe_source(kind, args.annotations, args.images))
