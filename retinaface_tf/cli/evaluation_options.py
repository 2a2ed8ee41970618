"""Options that the evaluation commands share: labels, detections, model and result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.cli.options import add_batch_size, add_json, add_model, add_protocol, add_quiet, add_thresholds
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations

Detect = Callable[[Any], Any]
LABELS = "labels: a .csv, COCO .json, WIDER FACE .txt or .mat file, or folder of .mat, VOC .xml or YOLO .txt files"


def add_labels(parser: argparse.ArgumentParser, *, subset: bool = True) -> None:
    """`--ground-truth`, `--images` and, where one is chosen, `--subset`."""
    parser.add_argument(
        "--ground-truth",
        metavar="PATH",
        type=Path,
        help=f"{LABELS}; default: $RETINAFACE_TF_DATA/wider_ground_truth",
    )
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the photos; needed to run a model and to read YOLO labels"
    )
    if subset:
        parser.add_argument(
            "--subset",
            default="all",
            metavar="NAME",
            help="faces to evaluate: all, or easy, medium or hard of WIDER FACE; default: %(default)s",
        )


def add_detections(parser: argparse.ArgumentParser) -> None:
    """`--detections`, `--protocol` and `--only-present`."""
    parser.add_argument(
        "--detections",
        metavar="PATH",
        type=Path,
        required=True,
        help="folder with one result file per photo, or a COCO result .json; a model writes its results to this folder",
    )
    add_protocol(parser)
    parser.add_argument(
        "--only-present",
        action="store_true",
        help="leave out photos without a result, instead of counting their faces as missed",
    )


def add_model_run(parser: argparse.ArgumentParser, *, batched: bool = True) -> None:
    """The options of a command that can run the model itself; `batched` if it can show several images at once."""
    group = parser.add_argument_group("running the model")
    add_model(group, runtime=True)
    add_thresholds(group, score_threshold=0.02, nms_threshold=0.4)
    if batched:
        add_batch_size(group, 1)
    add_quiet(group)


def add_output(parser: argparse.ArgumentParser, *, plots: bool = True) -> None:
    """`--json` and, if there is a plot, `--plots`."""
    group = parser.add_argument_group("result")
    add_json(group)
    if plots:
        group.add_argument("--plots", metavar="DIR", type=Path, help="write plots to this folder")


def read_labels(args: argparse.Namespace) -> Annotations:
    """The annotations of `--ground-truth`, by default WIDER FACE's validation set."""
    from retinaface_tf.annotations.read import read_annotations
    from retinaface_tf.annotations.widerface import read_wider_ground_truth

    return read_wider_ground_truth() if args.ground_truth is None else read_annotations(args.ground_truth, args.images)


def wants_model(args: argparse.Namespace) -> bool:
    """Whether the user named a model."""
    return args.preset is not None or args.model is not None


def refuse_images(args: argparse.Namespace) -> None:
    """Raise ValueError for `--images` without a model, unless the labels are a folder: YOLO's need the photos."""
    if args.images is not None and not (args.ground_truth and args.ground_truth.is_dir()):
        raise ValueError("--images is only used with a model: add --preset or --model")


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """The options of a command that scores detections of labeled photos: labels and detections."""
    add_labels(parser)
    add_detections(parser)


def require_images(args: argparse.Namespace) -> None:
    """Raise ValueError for a model without `--images`."""
    if wants_model(args) and args.images is None:
        raise ValueError("--preset and --model need --images DIR, the photos to run on")


def run_model(
    args: argparse.Namespace, photos: Mapping[str, PathLike], run: Callable[..., Any], **options: Any
) -> None:
    """Write detections of the photos to `--detections` with the model that is named, by `run_detector` or its like."""
    detect, settings = open_detector(args)
    options |= {"batch_size": args.batch_size, "settings": settings, "progress": not args.quiet}
    run(detect, photos, args.detections, **options)


def read_and_detect(args: argparse.Namespace, *, may_have_images: bool = False) -> tuple[Annotations, Any]:
    """The annotations and detections of a scoring command; a model that is named runs first.

    Args:
        args: Of `add_scoring` and `add_model_run`.
        may_have_images: Whether `--images` is allowed without a model.
    """
    from retinaface_tf.annotations.read import find_photos
    from retinaface_tf.evaluation.evaluate import load_detections
    from retinaface_tf.evaluation.runner import run_detector

    require_images(args)
    if not wants_model(args) and not may_have_images:
        refuse_images(args)
    annotations = read_labels(args)
    if wants_model(args):
        if args.detections.suffix == ".json":
            raise ValueError(f"--detections must be a folder if a model is run. Received: {args.detections}")
        photos = find_photos(args.images, annotations)  # a missing folder is answered before the model is loaded
        run_model(args, photos, run_detector, protocol=args.protocol)
    found = load_detections(args.detections, annotations, args.ground_truth)
    return (annotations.only(found) if args.only_present else annotations), found


def open_detector(args: argparse.Namespace) -> tuple[Detect, dict[str, Any]]:
    """The detector that the options name, and its settings, which are stored with the detections.

    The detector is a callable from one image, or from a list of them with `--batch-size` over 1. TensorFlow is imported
    here and not before.

    Raises:
        ValueError: No model named, one of an unknown kind, or an artifact whose thresholds are fixed otherwise.
        OSError: The file of `--model` is missing.
    """
    from functools import partial

    from retinaface_tf import loading
    from retinaface_tf.cli.options import THRESHOLDS, open_model

    model = open_model(args.preset, args.model, runtime=args.runtime)
    thresholds = {"score_threshold": args.score_threshold, "nms_threshold": args.nms_threshold}
    if hasattr(model, "thresholds"):  # an artifact may have fixed them
        thresholds = model.thresholds(**thresholds, max_detections=args.max_detections)
    else:
        thresholds["max_detections"] = args.max_detections or THRESHOLDS["max_detections"]
    name = args.model or args.preset
    made_of = loading.identify(name, args.runtime)
    settings = {"model": name, "files": made_of["model"], "runtime": made_of["runtime"], **thresholds}
    # The protocol says how often a photo is looked at, and at which size.
    detect = partial(model.detect, resize=None, close_ups=False, **thresholds)
    batch_size = getattr(args, "batch_size", 1)
    return (partial(detect, batch_size=batch_size) if batch_size > 1 else detect), settings
