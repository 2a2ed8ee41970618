"""`retinaface-tf evaluate widerface`: WIDER FACE's AP from result files, running the model first if one is named."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, require_images, run_model
from retinaface_tf.cli.options import add_bootstrap, add_protocol
from retinaface_tf.cli.output import report

EXAMPLES = """examples:
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found/
  retinaface-tf evaluate widerface --detections found/ --json - | jq .ap           score existing results
  retinaface-tf evaluate widerface --model mine.keras --images WIDER_val/images --detections found/ --shard 1/4
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found_vga/ \\
      --protocol vga --bootstrap 1000
  retinaface-tf evaluate widerface --detections found/ --published-python --integer-boxes     as bb6's evaluation.py
  retinaface-tf evaluate widerface --detections found/ --without-plus-one --only-present      as some other tools
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detections",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of event/photo.txt files; a model writes them",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        help="folder of the official .mat files; default: $RETINAFACE_TF_DATA/wider_ground_truth",
    )
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the validation photos; needed to run a model"
    )
    add_protocol(parser)
    parser.add_argument(
        "--shard",
        metavar="PART/PARTS",
        default="1/1",
        help="run the model on this part of the photos, such as 1/4, without scoring",
    )
    parser.add_argument(
        "--only-present",
        action="store_true",
        help="leave out photos without a result, instead of counting their faces as missed",
    )
    arithmetic = parser.add_argument_group("arithmetic, to reproduce published numbers")
    arithmetic.add_argument("--integer-boxes", action="store_true", help="truncate box corners to integers")
    arithmetic.add_argument(
        "--published-python",
        action="store_true",
        help="do not sort detections by score, as in the common Python port",
    )
    arithmetic.add_argument("--without-plus-one", action="store_true", help="IoU without +1 on widths and heights")
    add_bootstrap(parser)
    add_model_run(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score as the parsed `args` say, and return the exit code."""
    from itertools import islice

    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.annotations.widerface import read_wider_ground_truth
    from retinaface_tf.evaluation.detection_files import read_detections
    from retinaface_tf.evaluation.plots import plot_widerface
    from retinaface_tf.evaluation.runner import run_detector
    from retinaface_tf.evaluation.widerface import format_report, match, report_widerface

    require_images(args)
    part, parts = parse_shard(args.shard)
    annotations = read_wider_ground_truth(args.ground_truth)
    if args.images is not None:
        photos = find_photos(args.images, annotations)  # answered before the model is loaded
        run_model(args, dict(islice(photos.items(), part - 1, None, parts)), run_detector, protocol=args.protocol)
        if parts > 1:
            return 0
    detections = read_detections(args.detections, annotations.names)
    if args.only_present:
        annotations = annotations.only(detections)
    arithmetic = {
        "integer_boxes": args.integer_boxes,
        "published_python": args.published_python,
        "plus_one": not args.without_plus_one,
    }
    result = report_widerface(annotations, detections, resamples=args.bootstrap, **arithmetic)
    if args.plots is not None:
        plot_widerface(args.plots, annotations, match(annotations, detections, **arithmetic), result)
    report(args, result, format_report(result), is_table=True)
    return 0


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` -> (2, 4): the second of four parts; ValueError on anything else."""
    try:
        part, parts = (int(number) for number in text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise ValueError(f"--shard must be PART/PARTS, such as 1/4. Received: {text!r}")
    return part, parts
