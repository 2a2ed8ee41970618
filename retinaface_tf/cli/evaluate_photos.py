"""Average precision on any labelled photos (a CSV or COCO JSON), running the model first if one is named."""

import argparse
from typing import Any

from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.cli import labelled
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.plots import plot_curves
from retinaface_tf.evaluation.wider_breakdown import ap_by_height, bootstrap_ap
from retinaface_tf.evaluation.wider_report import without_nan
from retinaface_tf.evaluation.widerface import curve, match, subset_ap
from retinaface_tf.evaluation.worst import draw_cases, worst_alarms, worst_misses

HELP = "AP on your own photos: a CSV with file,x1,y1,x2,y2, or COCO JSON"
EXAMPLES = """examples:
  retinaface-tf evaluate photos --preset mobilenet025_wider --images photos/ --ground-truth faces.csv \\
      --detections found/
  retinaface-tf evaluate photos --ground-truth coco.json --images photos/ --model mine.onnx --detections found/ \\
      --worst 20 --plots plots/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinaface-tf evaluate photos`."""
    labelled.add_label_arguments(parser)
    labelled.add_detection_arguments(parser)
    parser.add_argument(
        "--worst",
        metavar="N",
        type=int,
        default=0,
        help="draw the N worst misses and alarms into --plots",
    )
    parser.add_argument("--bootstrap", metavar="N", type=int, default=0, help="draws for the 95 %% interval, e.g. 1000")
    common.add_model_arguments(parser)
    common.add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score. Returns 0; raises ValueError or OSError with one line on bad input."""
    if args.worst and (args.plots is None or args.images is None):
        raise ValueError("--worst needs --plots DIR, where to draw, and --images DIR, the photos")
    annotations = labelled.read_labels(args)
    annotations, detections = labelled.read_or_run(args, annotations)
    keep = annotations.subset(args.subset)
    matching = match(annotations, detections, plus_one=False, skip_empty_photos=False)
    result: dict[str, Any] = {
        "photos": len(annotations.names),
        "photos_with_a_file": len(detections),
        "faces": int(keep.sum()),
        "detections": len(matching.face),
        "ap": subset_ap(matching, keep),
    }
    if args.bootstrap:
        result["interval_95"] = bootstrap_ap(annotations, matching, keep, resamples=args.bootstrap)
    result["by_height"] = ap_by_height(annotations, matching, keep)
    result = without_nan(result)
    if args.plots is not None:
        precision, recall = curve(matching, keep)
        plot_curves(
            args.plots / "precision_recall.png",
            {f"{args.subset} (AP {100 * (result['ap'] or 0):.2f})": (recall, precision)},
            x_label="recall",
            y_label="precision",
            x_range=(0, 1.02),
            y_range=(0, 1.02),
        )
    if args.worst:
        photos = labelled.photo_paths(args, annotations)
        worst = (
            worst_misses(annotations, matching, keep, args.worst),
            worst_alarms(annotations, detections, matching, keep, args.worst),
        )
        for kind, cases in zip(("misses", "alarms"), worst, strict=True):
            draw_cases(args.plots / f"{kind}.png", cases, annotations, photos)
    common.report(args, result, _text(result))
    return 0


def _text(result):
    percent = lambda value: "-" if value is None else f"{100 * value:.2f}"  # noqa: E731
    end = "   95 % interval {}-{}".format(*map(percent, result["interval_95"])) if "interval_95" in result else ""
    lines = [
        f"{pluralize(result['photos'], 'photo')} ({result['photos_with_a_file']} with a result file), "
        f"{pluralize(result['faces'], 'face')}, {pluralize(result['detections'], 'detection')}",
        f"AP at IoU 0.5   {percent(result['ap'])}{end}",
    ]
    for row in result["by_height"]:
        band = f"{row['from']:.0f} to {row['to']:.0f}" if row["to"] else f"{row['from']:.0f} and more"
        lines.append(f"  {band:>12} pixels high{row['faces']:>8} faces{percent(row['ap']):>9}")
    return "\n".join(lines)
