"""Labelled photos and what was found in them, for the commands that take any set: WIDER FACE, COCO JSON or CSV."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retinaface_tf.annotations.box_files import read_box_csv
from retinaface_tf.annotations.coco import from_coco_detections, from_coco_ground_truth, read_json
from retinaface_tf.annotations.wider_ground_truth import read_wider_ground_truth
from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.evaluation.detection_files import read_detections
from retinaface_tf.evaluation.protocols import PROTOCOLS
from retinaface_tf.evaluation.runner import find_photos, run_detector

if TYPE_CHECKING:
    from retinaface_tf.annotations.wider_ground_truth import WiderGroundTruth
    from retinaface_tf.evaluation.detection_files import ImageDetections


def add_label_arguments(parser: argparse.ArgumentParser, *, subset: bool = True) -> None:
    """`--ground-truth`, `--images` and, where one is chosen, `--subset`."""
    parser.add_argument(
        "--ground-truth",
        metavar="PATH",
        type=Path,
        help="folder of WIDER FACE's .mat files, COCO .json, or .csv with file,x1,y1,x2,y2; "
        "default: $RETINAFACE_TF_DATA/wider_ground_truth",
    )
    parser.add_argument("--images", metavar="DIR", type=Path, help="folder of the photos, to run the model")
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


def read_labels(args: argparse.Namespace) -> tuple[WiderGroundTruth, dict[str, str] | None]:
    """`(ground_truth, files)`: answers, and where each photo is below `--images` (None: event/photo.jpg)."""
    path = args.ground_truth
    if path is None or path.is_dir():
        return read_wider_ground_truth(path), None
    if path.suffix == ".json":
        content = read_json(path)
        ground_truth = from_coco_ground_truth(content)
        files = [image["file_name"] for image in content["images"]]
        return ground_truth, dict(zip(ground_truth.names, files, strict=True))
    if path.suffix == ".csv":
        return read_box_csv(path)
    raise ValueError(f"--ground-truth must be a folder, a .json or a .csv. Received: {path}")


def chosen_faces(args: argparse.Namespace, ground_truth: WiderGroundTruth) -> np.ndarray:
    """The bool mask of `--subset`; ValueError lists what there is."""
    # Every face, unless the set itself says which of its faces do not count.
    subsets = {"all": np.ones(len(ground_truth.boxes), bool), **ground_truth.subsets}
    if args.subset not in subsets:
        raise ValueError(f"--subset must be one of {list(subsets)} for this ground truth. Received: {args.subset!r}")
    return subsets[args.subset]


def photo_paths(
    args: argparse.Namespace, ground_truth: WiderGroundTruth, files: Mapping[str, str] | None
) -> dict[str, Path]:
    """Dict name -> path of the photos below `--images`; ValueError or FileNotFoundError if there are none."""
    if args.images is None:
        raise ValueError("--preset and --model need --images DIR, the photos to run on")
    if files is None:
        return find_photos(args.images, ground_truth.names)
    photos = {name: args.images / file for name, file in files.items() if (args.images / file).is_file()}
    if not photos:
        raise FileNotFoundError(f"none of the {len(files)} photos is in {args.images}")
    return photos


def read_or_run(
    args: argparse.Namespace, ground_truth: WiderGroundTruth, files: Mapping[str, str] | None
) -> tuple[WiderGroundTruth, dict[str, ImageDetections]]:
    """`(ground_truth, detections)`, running the model first if one is named."""
    is_json = args.detections.suffix == ".json"
    if common.wants_model(args):
        if is_json:
            raise ValueError(f"--detections must be a folder where a model is run. Received: {args.detections}")
        photos = photo_paths(args, ground_truth, files)  # a missing folder is answered before the model is loaded
        run_detector(
            common.load_detect(args),
            photos,
            args.detections,
            protocol=args.protocol,
            batch_size=args.batch_size,
            settings=common.model_settings(args),
            progress=not args.quiet,
        )
    elif args.images is not None and not getattr(args, "worst", 0):  # which draws them
        raise ValueError("--images is for running a model: name it with --preset or --model")
    if is_json:
        numbers = dict(enumerate(ground_truth.names, start=1))
        if args.ground_truth is not None and args.ground_truth.suffix == ".json":
            images = read_json(args.ground_truth)["images"]
            numbers = {image["id"]: name for image, name in zip(images, ground_truth.names, strict=True)}
        detections = from_coco_detections(read_json(args.detections), numbers)
    else:
        detections = read_detections(args.detections, ground_truth.names)
    return (ground_truth.only(detections) if args.only_present else ground_truth), detections
