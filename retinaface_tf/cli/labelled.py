"""Annotations and detections of the commands that take any labeled set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_tf.annotations.coco import image_numbers
from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.annotations.widerface import read_wider_ground_truth
from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.common.json_files import read_json
from retinaface_tf.evaluation.coco import from_coco_detections
from retinaface_tf.evaluation.detection_files import read_detections
from retinaface_tf.evaluation.protocols import PROTOCOLS
from retinaface_tf.evaluation.runner import run_detector

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations
    from retinaface_tf.common.json_files import read_json
from retinaface_tf.evaluation.detection_files import ImageDetections


def add_label_arguments(parser: argparse.ArgumentParser, *, subset: bool = True) -> None:
    """`--ground-truth`, `--images` and, where one is chosen, `--subset`."""
    parser.add_argument(
        "--ground-truth",
        metavar="PATH",
        type=Path,
        help="labels as `convert` takes them: COCO .json, .csv, WIDER FACE's .txt, .mat or folder of .mat, folder of "
        ".xml (VOC) or .txt (YOLO); default: $RETINAFACE_TF_DATA/wider_ground_truth",
    )
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the photos: to run the model, and for YOLO's labels"
    )
    if subset:
        parser.add_argument("--subset", default="all", help="faces that count: easy, medium, hard or all (default)")


def add_detection_arguments(parser: argparse.ArgumentParser) -> None:
    """`--detections`, `--protocol` and `--only-present`."""
    parser.add_argument(
        "--detections",
        metavar="PATH",
        type=Path,
        required=True,
        help="folder of a file a photo, or a COCO result .json; the folder is written if a model runs",
    )
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="original", help="default: %(default)s")
    parser.add_argument(
        "--only-present", action="store_true", help="score only photos that have a result; others are not misses"
    )


def read_labels(args: argparse.Namespace) -> Annotations:
    """The annotations of `--ground-truth`, by default WIDER FACE's validation set."""
    if args.ground_truth is None:
        return read_wider_ground_truth()
    return read_annotations(args.ground_truth, args.images)


def photo_paths(args: argparse.Namespace, annotations: Annotations) -> dict[str, Path]:
    """Dict name -> path of the photos below `--images`; ValueError or FileNotFoundError if there are none."""
    if args.images is None:
        raise ValueError("--preset and --model need --images DIR, the photos to run on")
    return find_photos(args.images, annotations)


def read_or_run(args: argparse.Namespace, annotations: Annotations) -> tuple[Annotations, dict[str, ImageDetections]]:
    """`(annotations, detections)`, running the model first if one is named."""
    is_json = args.detections.suffix == ".json"
    if common.wants_model(args):
        if is_json:
            raise ValueError(f"--detections must be a folder where a model is run. Received: {args.detections}")
        photos = photo_paths(args, annotations)  # a missing folder is answered before the model is loaded
        run_detector(
            common.load_detect(args),
            photos,
            args.detections,
            protocol=args.protocol,
            batch_size=args.batch_size,
            settings=common.model_settings(args),
            progress=not args.quiet,
        )
    elif not getattr(args, "worst", 0):  # which draws them
        refuse_images(args)
    if is_json:
        numbers = image_numbers(args.ground_truth, annotations)
        detections = from_coco_detections(read_json(args.detections), numbers)
    else:
        detections = read_detections(args.detections, annotations.names)
    return (annotations.only(detections) if args.only_present else annotations), detections


def refuse_images(args: argparse.Namespace) -> None:
    """Raise ValueError for `--images` without a model, unless the labels are a folder: YOLO's need the photos."""
    if args.images is not None and not (args.ground_truth and args.ground_truth.is_dir()):
        raise ValueError("--images is for running a model: name it with --preset or --model")
