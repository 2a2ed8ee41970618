"""`retinaface-tf evaluate robustness`: AP by face size and flag, and under rotation, compression, noise and scale."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import (
    add_labels,
    add_model_run,
    add_output,
    read_labels,
    refuse_images,
    require_images,
    run_model,
    wants_model,
)
from retinaface_tf.cli.options import add_bootstrap
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation import CORRUPTION_KINDS

EXAMPLES = """examples:
  retinaface-tf evaluate robustness --ground-truth faces.csv --images photos/ --preset mobilenet025_wider \\
      --detections found/
  retinaface-tf evaluate robustness --ground-truth faces.csv --detections found/ --kinds rotation jpeg --plots plots/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_labels(parser, subset=False)
    parser.add_argument(
        "--detections",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder with a subfolder of result files per corruption; a model writes them",
    )
    parser.add_argument(
        "--kinds", nargs="+", action="extend", choices=CORRUPTION_KINDS, help="corruptions to test; default: all"
    )
    add_bootstrap(parser)
    add_model_run(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.evaluation.plots import plot_bars
    from retinaface_tf.evaluation.robustness import (
        breakdown_rows,
        choose_corruptions,
        format_robustness,
        photos_with_results,
        report_robustness,
        run_corruptions,
    )

    require_images(args)
    corruptions = choose_corruptions(args.kinds)
    annotations = read_labels(args)
    if wants_model(args):
        photos = find_photos(args.images, annotations)  # answered before the model is loaded
        run_model(args, photos, run_corruptions, corruptions=corruptions)
    else:
        refuse_images(args)
    annotations = photos_with_results(annotations, args.detections, corruptions)
    result = report_robustness(annotations, args.detections, corruptions=corruptions, resamples=args.bootstrap)
    if args.plots is not None:
        title = f"{pluralize(result['photos'], 'photo')}, all faces"
        values = {row["name"]: row["ap"]["all"] for row in result["corruptions"]}
        plot_bars(args.plots / "corruptions.png", values, y_label="AP", title=title, y_range=(0, 1.08))
        values = {label: row["ap"] for label, row in breakdown_rows(result).items()}
        plot_bars(args.plots / "faces.png", values, y_label="AP", title=title, y_range=(0, 1.08))
    report(args, result, format_robustness(result), is_table=True)
    return 0
