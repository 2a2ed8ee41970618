"""FDDB detection rates: discrete and continuous ROC over the ten folds, matched as the official tool does."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.fddb import read_folds
from retinaface_tf.annotations.read import locate_files
from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.common.text import pluralize
from retinaface_tf.evaluation.detection_files import read_detection_list, read_detections
from retinaface_tf.evaluation.fddb import FALSE_POSITIVES, evaluate_fddb
from retinaface_tf.evaluation.plots import plot_curves
from retinaface_tf.evaluation.protocols import PROTOCOLS
from retinaface_tf.evaluation.runner import run_detector

HELP = "FDDB detection rate at 1,000 false positives, and both ROC curves"
EXAMPLES = """examples:
  retinaface-tf evaluate fddb --preset mobilenet025_wider --images originalPics --ground-truth FDDB-folds \\
      --detections found/
  retinaface-tf evaluate fddb --ground-truth FDDB-folds --detections found/ --overlap upright --plots plots/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinaface-tf evaluate fddb`."""
    parser.add_argument("--ground-truth", metavar="DIR", type=Path, required=True, help="the folder FDDB-folds")
    parser.add_argument(
        "--detections",
        metavar="PATH",
        type=Path,
        required=True,
        help="one FDDB result file, or a folder of a file a photo; the folder is written if a model runs",
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="run the model over originalPics in DIR")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="original", help="default: %(default)s")
    parser.add_argument(
        "--overlap",
        choices=("ellipse", "tight", "upright"),
        default="ellipse",
        help="with the drawn ellipse as the official tool, or with a box made of it; default: %(default)s",
    )
    parser.add_argument("--false-positives", type=int, default=FALSE_POSITIVES, help="default: %(default)s")
    common.add_model_arguments(parser)
    common.add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run and score. Returns 0; raises ValueError or OSError with one line on bad input."""
    folds = read_folds(args.ground_truth)
    names = [name for fold in folds for name in fold]
    sizes = None
    if args.images is not None:
        photos = _find_photos(args.images, names)
        sizes = _image_sizes(photos)
        if common.wants_model(args):
            run_detector(
                common.load_detect(args),
                photos,
                args.detections,
                protocol=args.protocol,
                batch_size=args.batch_size,
                settings=common.model_settings(args),
                progress=not args.quiet,
            )
    elif common.wants_model(args):
        raise ValueError("--preset and --model need --images DIR, the photos to run on")
    if args.detections.is_file():
        detections = read_detection_list(args.detections)
    else:
        detections = read_detections(args.detections, names)
    result, curve = evaluate_fddb(
        folds, detections, kind=args.overlap, image_sizes=sizes, false_positives=args.false_positives
    )
    result["clipped_to_photos"] = sizes is not None
    if args.plots is not None:
        title = f"FDDB, {pluralize(result['photos'], 'photo')}, {pluralize(result['faces'], 'face')}"
        curves = {name: (curve.false_positives, getattr(curve, name)) for name in ("discrete", "continuous")}
        labels: dict[str, Any] = {"x_label": "false positives", "y_label": "detection rate", "title": title}
        plot_curves(args.plots / "roc.png", curves, **labels, x_range=(0, 2 * args.false_positives), y_range=(0, 1.02))
    common.report(args, result, _text(result))
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
    discrete, continuous = (np.array(result["folds"][key]) * 100 for key in ("discrete", "continuous"))
    lines.append(
        f"{'mean of the folds':<20}{discrete.mean():>10.2f}{continuous.mean():>12.2f}   "
        f"(from {discrete.min():.2f} to {discrete.max():.2f} discrete)"
    )
    if result["false_positives_at_the_lowest_score"] < result["false_positives"]:
        lines.append(
            f"the detections hold only {result['false_positives_at_the_lowest_score']} false positives: "
            "a lower --score-threshold could find more faces"
        )
    return "\n".join(lines)


def _find_photos(images, names):
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
