"""WIDER FACE average precision from result files, running the model first if one is named."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.read import find_photos
from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.detection_files import read_detections
from retinaface_tf.evaluation.plots import plot_bars, plot_curves
from retinaface_tf.evaluation.protocols import PROTOCOLS
from retinaface_tf.evaluation.runner import run_detector
from retinaface_tf.evaluation.wider_report import format_report, report_widerface
from retinaface_tf.evaluation.widerface import curve, match

HELP = "Easy, Medium and Hard AP as the official tool counts them"
EXAMPLES = """examples:
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found/
  retinaface-tf evaluate widerface --detections found/ --json - | jq .ap           results that are there
  retinaface-tf evaluate widerface --model mine.keras --images WIDER_val/images --detections found/ --shard 1/4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinaface-tf evaluate widerface`."""
    parser.add_argument(
        "--detections", metavar="DIR", type=Path, required=True, help="event/photo.txt files; written if a model runs"
    )
    parser.add_argument(
        "--ground-truth", metavar="DIR", type=Path, help="the official .mat files; default: $RETINAFACE_TF_DATA"
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="run the model over the validation photos in DIR")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="original", help="default: %(default)s")
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
    parser.add_argument("--bootstrap", metavar="N", type=int, default=0, help="draws for 95 %% intervals, e.g. 1000")
    common.add_model_arguments(parser)
    common.add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score. Returns 0; raises ValueError or OSError with one line on bad input."""
    part, parts = common.parse_shard(args.shard)
    annotations = read_wider_ground_truth(args.ground_truth)
    if args.images is not None:
        photos = find_photos(args.images, annotations)
        mine = dict(islice(photos.items(), part - 1, None, parts))
        run_detector(
            common.load_detect(args),
            mine,
            args.detections,
            protocol=args.protocol,
            batch_size=args.batch_size,
            settings=common.model_settings(args),
            progress=not args.quiet,
        )
        if parts > 1:
            return 0
    elif common.wants_model(args):
        raise ValueError("--preset and --model need --images DIR, the photos to run on")
    detections = read_detections(args.detections, annotations.names)
    if args.only_present:
        annotations = annotations.only(detections)
    options = {
        "integer_boxes": args.integer_boxes,
        "published_python": args.published_python,
        "plus_one": not args.without_plus_one,
    }
    result = report_widerface(annotations, detections, resamples=args.bootstrap, **options)
    if args.plots is not None:
        _plot(args.plots, annotations, match(annotations, detections, **options), result)
    common.report(args, result, format_report(result))
    return 0


def _plot(directory, annotations, matching, result):
    keeps = {**annotations.subsets, "all": np.ones(len(annotations.boxes), bool)}
    curves = {}
    for name, keep in keeps.items():
        precision, recall = curve(matching, keep)
        curves[f"{name.capitalize()} (AP {100 * (result['ap'][name] or 0):.2f})"] = (recall, precision)
    unit: dict[str, Any] = {"x_range": (0, 1.02), "y_range": (0, 1.02)}
    title = f"WIDER FACE, {pluralize(result['photos'], 'photo')}"
    path = directory / "precision_recall.png"
    plot_curves(path, curves, x_label="recall", y_label="precision", title=title, **unit)
    heights = {
        f"{row['from']:.0f} to {row['to']:.0f}" if row["to"] else f"{row['from']:.0f}+": row["ap"]
        for row in result["by_height"]
    }
    plot_bars(directory / "ap_by_height.png", heights, y_label="AP by face height in pixels", y_range=(0, 1.08))
    events = {event: row["ap"] for event, row in result["by_event"].items() if row["photos"]}
    plot_bars(directory / "ap_by_event.png", events, y_label="AP", title=title, y_range=(0, 1.08))
