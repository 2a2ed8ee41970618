"""`retinaface-tf convert custom`: your own photos and labels in, TFRecord shards out."""

import argparse

from retinaface_tf.annotations import KINDS
from retinaface_tf.cli.convert_options import add_shared_arguments, convert, describe_source
from retinaface_tf.cli.evaluation_options import LABELS

EXAMPLES = """examples:
  retinaface-tf convert custom --images photos/ --annotations faces.json --output shards/     COCO
  retinaface-tf convert custom --images photos/ --annotations xml/ --output shards/           Pascal VOC
  retinaface-tf convert custom --images photos/ --annotations labels/ --output shards/        YOLO
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/      file,x1,y1,x2,y2,…

docs/data.md says what each form may hold. The same command again goes on where it was stopped or killed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="DIR", help="the folder that the photos' names start from")
    parser.add_argument("--annotations", required=True, metavar="PATH", help=LABELS)
    parser.add_argument("--kind", choices=("auto", *KINDS), default="auto", help="default: by what PATH holds")
    parser.add_argument(
        "--classes", nargs="+", action="extend", metavar="NAME", help="classes that are faces; default: all"
    )
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert as the parsed `args` say, and return the exit code."""
    from pathlib import Path

    from retinaface_tf.annotations.read import guess_kind, read_annotations

    if not Path(args.images).is_dir():
        raise FileNotFoundError(f"{args.images}: no such folder; expected the one with the photos")
    kind = guess_kind(args.annotations) if args.kind == "auto" else args.kind
    annotations = read_annotations(args.annotations, args.images, kind=kind, classes=args.classes, pixels=False)
    return convert(args, annotations.by_name(), describe_source(kind, args.annotations, args.images))
