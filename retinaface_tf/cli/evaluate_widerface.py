"""`retinaface-tf evaluate widerface`: WIDER FACE's AP from result files, running the model first if one is named."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, open_detector, wants_model
from retinaface_tf.cli.options import add_bootstrap, add_protocol
from retinaface_tf.cli.output import report

EXAMPLES = """examples:
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found/
  retinaface-tf evaluate widerface --detections found/ --json - | jq .ap           results that are there
  retinaface-tf evaluate widerface --model mine.keras --images WIDER_val/images --detections found/ --shard 1/4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detections", metavar="DIR", type=Path, required=True, help="event/photo.txt files; written if a model runs"
    )
    parser.add_argument(
        "--ground-truth", metavar="DIR", type=Path, help="the official .mat files; default: $RETINAFACE_TF_DATA"
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="run the model over the validation photos in DIR")
    add_protocol(parser)
    parser.add_argument("--shard", metavar="PART/PARTS", default="1/1", help="only run this part, and do not score")
    parser.add_argument(
        "--only-present", action="store_true", help="score only photos that have a result file; others are not misses"
    )
    arithmetic = parser.add_argument_group("arithmetic, for tracing published numbers")
    arithmetic.add_argument("--integer-boxes", action="store_true", help="cut box corners to integers")
    arithmetic.add_argument(
        "--published-python", action="store_true", help="unsorted scores, as in the widespread Python port"
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

    part, parts = parse_shard(args.shard)
    annotations = read_wider_ground_truth(args.ground_truth)
    if args.images is not None:
        photos = find_photos(args.images, annotations)  # answered before the model is loaded
        detect, settings = open_detector(args)
        run_detector(
            detect,
            dict(islice(photos.items(), part - 1, None, parts)),
            args.detections,
            protocol=args.protocol,
            batch_size=args.batch_size,
            settings=settings,
            progress=not args.quiet,
        )
        if parts > 1:
            return 0
    elif wants_model(args):
        raise ValueError("--preset and --model need --images DIR, the photos to run on")
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
