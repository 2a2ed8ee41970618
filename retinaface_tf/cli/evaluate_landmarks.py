"""`retinaface-tf evaluate landmarks`: NME, failure rate and area under the curve on AFLW, 300-W, or any five points."""

import argparse
from pathlib import Path

from retinaface_tf.annotations import KINDS
from retinaface_tf.cli.evaluation_options import add_model_run, add_output, open_detector, require_images
from retinaface_tf.cli.options import add_bootstrap, add_protocol
from retinaface_tf.cli.output import report

EXAMPLES = """examples:
  retinaface-tf evaluate landmarks --preset mobilenet025_wider --images photos/ --ground-truth points.csv \\
      --predictions p.csv
  retinaface-tf evaluate landmarks --ground-truth aflw.sqlite --format aflw --predictions p.csv --bootstrap 1000
  retinaface-tf evaluate landmarks --ground-truth points.csv --predictions p.csv --threshold 0.08
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ground-truth",
        metavar="PATH",
        type=Path,
        required=True,
        help="labels with landmarks: a file, or a folder of .pts files",
    )
    parser.add_argument(
        "--format",
        choices=("auto", *KINDS),
        default="auto",
        help="format of the labels; default: recognized automatically",
    )
    parser.add_argument(
        "--predictions", metavar="FILE", type=Path, required=True, help="CSV of predicted landmarks; a model writes it"
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="folder of the photos; needed to run a model")
    add_protocol(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.1,
        help="error above which a face counts as a failure; default: %(default)s",
    )
    add_bootstrap(parser)
    add_model_run(parser, batched=False)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.read import read_annotations
    from retinaface_tf.evaluation.landmarks import evaluate_landmarks, predict_landmarks, require_landmarks
    from retinaface_tf.evaluation.plots import plot_cumulative_error
    from retinaface_tf.evaluation.widerface import without_nan

    require_images(args)
    if args.threshold <= 0:
        raise ValueError(f"--threshold must be positive. Received: {args.threshold}")
    faces = require_landmarks(read_annotations(args.ground_truth, args.images, kind=args.format))
    landmarks, boxes = faces.landmarks_or_nan(), faces.boxes if faces.has_boxes else None
    detect = photos = None
    if args.images is not None:
        photos = _find_photos(args.images, faces)  # answered before the model is loaded
        detect, _ = open_detector(args)
    predicted = predict_landmarks(
        detect, faces, photos, args.predictions, protocol=args.protocol, progress=not args.quiet
    )
    options = {"threshold": args.threshold, "resamples": args.bootstrap}
    result = without_nan(evaluate_landmarks(landmarks, predicted, boxes, **options))
    if args.plots is not None:
        plot_cumulative_error(args.plots / "cumulative_error.png", landmarks, boxes, predicted, args.threshold)
    report(args, result, _text(result), is_table=True)
    return 0


def _find_photos(images, faces):
    from retinaface_tf.annotations.read import locate_files

    files = [faces.files[photo] for photo in dict.fromkeys(faces.image)]
    found = locate_files(images, files)
    if missing := [file for file in files if file not in found]:
        raise FileNotFoundError(
            f"--images {images} has no file {missing[0]!r}, which the ground truth names "
            f"({len(missing)} of {len(files)} photos are missing): give the folder that its paths are relative to"
        )
    return found


def _text(result):
    lines = [
        f"{result['found']} of {result['faces']} faces found; a failure is an error above {result['threshold']:g}",
        f"{'normalized by':<16}{'NME %':>10}{'AUC %':>10}{'failures %':>12}",
    ]
    for name in ("inter-ocular", "box", "diagonal"):
        if name in result:
            numbers = [result[name][key] for key in ("nme", "auc", "failure_rate")]
            cells = ["-" if value is None else f"{100 * value:.2f}" for value in numbers]
            interval = result[name].get("interval_95")
            end = f"   95 % interval {100 * interval[0]:.2f}-{100 * interval[1]:.2f}" if interval else ""
            lines.append(f"{name:<16}{cells[0]:>10}{cells[1]:>10}{cells[2]:>12}{end}")
    return "\n".join(lines)
