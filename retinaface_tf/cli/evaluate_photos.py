"""`retinaface-tf evaluate photos`: average precision on any labeled photos, running the model first if one is named."""

import argparse

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, add_scoring, read_and_detect
from retinaface_tf.cli.options import add_bootstrap
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf evaluate photos --preset mobilenet025_wider --images photos/ --ground-truth faces.csv \\
      --detections found/
  retinaface-tf evaluate photos --ground-truth coco.json --images photos/ --model mine.onnx --detections found/ \\
      --worst 20 --plots plots/
  retinaface-tf evaluate photos --ground-truth wider_ground_truth/ --detections found/ --subset hard --only-present
  retinaface-tf evaluate photos --ground-truth faces.csv --images photos/ --preset mobilenet025_wider \\
      --detections found_vga/ --protocol vga --bootstrap 1000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scoring(parser)
    parser.add_argument(
        "--worst",
        metavar="N",
        type=int,
        default=0,
        help="draw the N largest missed faces and the N highest-scoring false positives into --plots",
    )
    add_bootstrap(parser)
    add_model_run(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.evaluation.evaluate import score
    from retinaface_tf.evaluation.plots import draw_errors, find_alarms, find_misses, plot_precision_recall
    from retinaface_tf.evaluation.widerface import curve

    if args.worst and (args.plots is None or args.images is None):
        raise ValueError("--worst needs --plots DIR for the pictures and --images DIR with the photos")
    annotations, detections = read_and_detect(args, may_have_images=args.worst > 0)
    result, matching, keep = score(annotations, detections, subset=args.subset, resamples=args.bootstrap)
    if args.plots is not None:
        precision, recall = curve(matching, keep)
        name = f"{args.subset} (AP {100 * (result['ap'] or 0):.2f})"
        plot_precision_recall(args.plots / "precision_recall.png", {name: (recall, precision)})
    if args.worst:
        photos = find_photos(args.images, annotations)
        misses = find_misses(annotations, matching, keep, args.worst)
        alarms = find_alarms(annotations, detections, matching, keep, args.worst)
        for kind, errors in (("misses", misses), ("alarms", alarms)):
            draw_errors(args.plots / f"{kind}.png", errors, annotations, photos)
    report(args, result, _text(result), is_table=True)
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
