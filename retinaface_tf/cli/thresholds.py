"""`retinaface-tf thresholds`: the score threshold for a given precision, recall or number of false positives."""

import argparse

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, add_scoring, read_and_detect
from retinaface_tf.cli.options import add_bootstrap
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf thresholds --ground-truth faces.csv --images photos/ --preset mobilenet025_wider --detections found/
  retinaface-tf thresholds --ground-truth faces.csv --detections found/ --precision 0.99 0.95 --recall 0.9 --json -
  retinaface-tf thresholds --ground-truth faces.csv --detections found/ --false-positives-per-image 0.1 --iou 0.4
  retinaface-tf thresholds --ground-truth wider_ground_truth/ --detections found/ --subset hard --only-present
"""
MOST = 1e6  # false positives per image
DEFAULT_TARGETS = [("precision", 0.99), ("precision", 0.95), ("recall", 0.9), ("false_positives_per_image", 0.1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scoring(parser)
    targets = parser.add_argument_group("targets (each takes one or more values)")
    for name, metavar, meaning in (
        ("precision", "P", "required share of detections that are faces"),
        ("recall", "R", "required share of faces that are found"),
        ("false-positives-per-image", "N", "allowed false positives per image"),
    ):
        targets.add_argument(
            f"--{name}", type=float, nargs="+", action="extend", default=[], metavar=metavar, help=meaning
        )
    parser.add_argument(
        "--iou", type=float, default=0.5, help="IoU from which a detection is correct; default: %(default)s"
    )
    add_bootstrap(parser, 200)
    add_model_run(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Find the thresholds as the parsed `args` say, and return the exit code."""
    from retinaface_tf.evaluation.plots import plot_curves
    from retinaface_tf.evaluation.thresholds import find_thresholds, operating_points, score_detections
    from retinaface_tf.evaluation.widerface import without_nan

    keys = ("precision", "recall", "false_positives_per_image")
    targets = [(key, value) for key in keys for value in getattr(args, key)] or DEFAULT_TARGETS
    for key, value in targets:
        if not 0 <= value <= (MOST if key == "false_positives_per_image" else 1):  # NaN, too
            raise ValueError(f"--{key.replace('_', '-')} out of range. Received: {value}")
    annotations, detections = read_and_detect(args)
    keep = annotations.subset(args.subset)
    scored = score_detections(annotations, detections, keep, iou_threshold=args.iou)
    rows = find_thresholds(scored, targets, resamples=args.bootstrap)
    counts = {"photos": len(annotations), "faces": int(keep.sum()), "subset": args.subset}
    result = without_nan({**counts, "iou": args.iou, "thresholds": rows})
    if args.plots is not None:
        points = operating_points(scored)
        plot_curves(
            args.plots / "thresholds.png",
            {name: (points["threshold"], points[name]) for name in ("precision", "recall")},
            x_label="score threshold",
            y_label="share",
            title=pluralize(result["photos"], "photo"),
            y_range=(0, 1.02),
        )
    report(args, result, _text(result), is_table=True)
    return 0


def _text(result):
    lines = [
        f"{pluralize(result['photos'], 'photo')}, {pluralize(result['faces'], 'face')} ({result['subset']}), "
        f"correct from IoU {result['iou']:g}",
        f"{'wanted':<36}{'threshold':>10}{'95 % interval':>18}{'precision':>11}{'recall':>8}{'false/image':>13}",
    ]
    for row in result["thresholds"]:
        sign = "<=" if row["wanted"] == "false_positives_per_image" else ">="
        target = f"{row['wanted'].replace('_', ' ')} {sign} {row['value']:g}"
        if row["threshold"] is None:
            best = "nothing was found" if row["best"] is None else f"the nearest is {row['best']:.4f}"
            lines.append(f"{target:<36} not reachable: {best}")
            continue
        interval = "-" if row["interval"] is None else f"{row['interval'][0]:.4f}-{row['interval'][1]:.4f}"
        recall = "-" if row["recall"] is None else f"{row['recall']:.4f}"
        lines.append(
            f"{target:<36}{row['threshold']:>10.4f}{interval:>18}{row['precision']:>11.4f}{recall:>8}"
            f"{row['false_positives_per_image']:>13.4f}"
        )
    return "\n".join(lines)
