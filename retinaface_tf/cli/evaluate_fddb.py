"""`retinaface-tf evaluate fddb`: discrete and continuous ROC over the ten folds, matched as the official tool does."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, require_images, run_model, wants_model
from retinaface_tf.cli.options import add_protocol
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf evaluate fddb --preset mobilenet025_wider --images originalPics --ground-truth FDDB-folds \\
      --detections found/
  retinaface-tf evaluate fddb --ground-truth FDDB-folds --detections found/ --overlap upright --plots plots/
  retinaface-tf evaluate fddb --ground-truth FDDB-folds --detections found/ --false-positives 100
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        required=True,
        help="the folder FDDB-folds of the official annotations",
    )
    parser.add_argument(
        "--detections",
        metavar="PATH",
        type=Path,
        required=True,
        help="one FDDB result file, or a folder with one file per photo, which a model writes",
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="the folder originalPics; needed to run a model")
    add_protocol(parser)
    parser.add_argument(
        "--overlap",
        choices=("ellipse", "tight", "upright"),
        default="ellipse",
        help="shape to compare boxes with: the ellipse, as in the official tool, or a box; default: %(default)s",
    )
    parser.add_argument(
        "--false-positives",
        type=int,
        default=1000,
        metavar="N",
        help="false positives at which the detection rate is read; default: %(default)s",
    )
    add_model_run(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.fddb import read_folds
    from retinaface_tf.evaluation.detection_files import read_detection_list, read_detections
    from retinaface_tf.evaluation.fddb import evaluate_fddb
    from retinaface_tf.evaluation.plots import plot_curves
    from retinaface_tf.evaluation.runner import run_detector

    require_images(args)
    folds = read_folds(args.ground_truth)
    names = [name for fold in folds for name in fold]
    sizes = None
    if args.images is not None:
        photos = _find_photos(args.images, names)
        sizes = _image_sizes(photos)
        if wants_model(args):
            run_model(args, photos, run_detector, protocol=args.protocol)
    if args.detections.is_file():
        detections = read_detection_list(args.detections)
    else:
        detections = read_detections(args.detections, names)
    result, curve = evaluate_fddb(
        folds, detections, kind=args.overlap, image_sizes=sizes, false_positives=args.false_positives
    )
    result["clipped_to_photos"] = sizes is not None
    if args.plots is not None:
        plot_curves(
            args.plots / "roc.png",
            {name: (curve.false_positives, getattr(curve, name)) for name in ("discrete", "continuous")},
            x_label="false positives",
            y_label="detection rate",
            title=f"FDDB, {pluralize(result['photos'], 'photo')}, {pluralize(result['faces'], 'face')}",
            x_range=(0, 2 * args.false_positives),
            y_range=(0, 1.02),
        )
    report(args, result, _text(result), is_table=True)
    return 0


def _text(result):
    lines = [
        f"FDDB, {pluralize(result['photos'], 'photo')}, {pluralize(result['faces'], 'face')}, "
        f"{pluralize(result['detections'], 'detection')}, "
        f"overlap with the {result['overlap'] + ('' if result['overlap'] == 'ellipse' else ' box')}",
        f"{'detection rate %':<20}{'discrete':>10}{'continuous':>12}",
        f"{'at ' + str(result['false_positives']) + ' false':<20}"
        f"{100 * result['discrete']:>10.2f}{100 * result['continuous']:>12.2f}",
    ]
    discrete, continuous = ([100 * rate for rate in result["folds"][key]] for key in ("discrete", "continuous"))
    lines.append(
        f"{'mean of the folds':<20}{sum(discrete) / len(discrete):>10.2f}{sum(continuous) / len(continuous):>12.2f}   "
        f"(from {min(discrete):.2f} to {max(discrete):.2f} discrete)"
    )
    if result["false_positives_at_the_lowest_score"] < result["false_positives"]:
        lines.append(
            f"the detections hold only {result['false_positives_at_the_lowest_score']} false positives: "
            "a lower --score-threshold could find more faces"
        )
    return "\n".join(lines)


def _find_photos(images, names):
    from retinaface_tf.annotations.read import locate_files

    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; expected FDDB's originalPics")
    found = locate_files(images, [f"{name}.jpg" for name in names], flat=True)
    if not found:
        raise FileNotFoundError(f"none of the {len(names)} photos is in {images}: expected {names[0]}.jpg")
    return {name: found[f"{name}.jpg"] for name in names if f"{name}.jpg" in found}


def _image_sizes(photos):
    """Name -> (height, width), from the files' headers."""
    from PIL import Image

    sizes = {}
    for name, path in photos.items():
        with Image.open(path) as image:
            sizes[name] = image.height, image.width
    return sizes
