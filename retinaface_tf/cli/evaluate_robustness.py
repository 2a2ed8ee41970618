"""AP by face size and flag, and under rotation, JPEG compression, noise and scale, in one table and a plot."""

import argparse
from pathlib import Path

from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.cli import labelled
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.corruptions import CORRUPTIONS
from retinaface_tf.evaluation.plots import plot_bars
from retinaface_tf.evaluation.robustness import (
    breakdown_rows,
    corruption_folder,
    format_robustness,
    report_robustness,
    run_corruptions,
)

HELP = "AP by size and flag, and on turned, compressed, noisy and small photos"
EXAMPLES = """examples:
  retinaface-tf evaluate robustness --ground-truth faces.csv --images photos/ --preset mobilenet025_wider \\
      --detections found/
  retinaface-tf evaluate robustness --ground-truth faces.csv --detections found/ --kinds rotation jpeg --plots plots/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinaface-tf evaluate robustness`."""
    labelled.add_label_arguments(parser, subset=False)
    parser.add_argument(
        "--detections",
        metavar="DIR",
        type=Path,
        required=True,
        help="a folder of result files for each corruption; written if a model runs, read again otherwise",
    )
    kinds = sorted({corruption.kind for corruption in CORRUPTIONS if corruption.kind != "none"})
    parser.add_argument("--kinds", nargs="+", action="extend", choices=kinds, help="default: all")
    parser.add_argument("--bootstrap", metavar="N", type=int, default=0, help="draws for 95 %% intervals")
    common.add_model_arguments(parser)
    common.add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score. Returns 0; raises ValueError or OSError with one line on bad input."""
    corruptions = [one for one in CORRUPTIONS if not args.kinds or one.kind in ("none", *args.kinds)]
    annotations = labelled.read_labels(args)
    if common.wants_model(args):
        photos = labelled.photo_paths(args, annotations)
        detect = common.load_detect(args)
        options = {"batch_size": args.batch_size, "settings": common.model_settings(args), "progress": not args.quiet}
        run_corruptions(detect, photos, args.detections, corruptions=corruptions, **options)
    else:
        labelled.refuse_images(args)
    # Only the photos that were run: a missing one says nothing about robustness.
    first = corruption_folder(args.detections, corruptions[0])
    present = [name for name in annotations.names if (first / f"{name}.txt").is_file()]
    if not present:
        raise FileNotFoundError(f"no result files in {first}: name a model and --images to make them")
    result = report_robustness(
        annotations.only(present), args.detections, corruptions=corruptions, resamples=args.bootstrap
    )
    if args.plots is not None:
        title = f"{pluralize(result['photos'], 'photo')}, all faces"
        values = {row["name"]: row["ap"]["all"] for row in result["corruptions"]}
        plot_bars(args.plots / "corruptions.png", values, y_label="AP", title=title, y_range=(0, 1.08))
        values = {label: row["ap"] for label, row in breakdown_rows(result).items()}
        plot_bars(args.plots / "faces.png", values, y_label="AP", title=title, y_range=(0, 1.08))
    common.report(args, result, format_robustness(result))
    return 0
