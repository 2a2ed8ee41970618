"""`retinaface-tf label`: a model completes the labels of people, for `convert custom`."""

import argparse
import sys
from pathlib import Path

from retinaface_tf.cli.pages import add_result_options, report
from retinaface_tf.common.text import pluralize

HELP = "complete labels with a model: landmarks for boxes, boxes for landmarks"
EXAMPLES = """examples:
  retinaface-tf label --images photos/ --annotations boxes.csv --output faces.csv --classes bare --protocol 2x
      boxes by people; landmarks from the model where the class is `bare` and the model is sure
  retinaface-tf label --images photos/ --annotations eyes.csv --output faces.csv --points left_eye right_eye
      landmarks by people; boxes and the other points from the model where its eyes agree

Photos with a landmark-labelled face whose box can't be had are left out: it would be trained as background.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from retinaface_tf.annotations.custom import POINTS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="folder of the photos")
    parser.add_argument("--annotations", required=True, metavar="FILE", type=Path, help=".csv with boxes or landmarks")
    parser.add_argument("--output", required=True, metavar="FILE", type=Path, help=".csv for `convert custom`")
    parser.add_argument("--preset", default="mobilenet025_wider", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--protocol", default="original", metavar="NAME", help="how photos are shown, as in `evaluate`")
    parser.add_argument(
        "--points", nargs="+", action="extend", choices=POINTS, metavar="NAME", help="labelled points to believe"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="classes whose landmarks can be seen; default: all",
    )
    parser.add_argument(
        "--min-score", type=float, default=0.9, metavar="S", help="of a face that is believed, default: %(default)s"
    )
    parser.add_argument("--only-boxes", action="store_true", help="leave landmarks that people did not mark unlabelled")
    parser.add_argument("--add-faces", action="store_true", help="add sure faces that nobody labelled")
    add_result_options(parser)


def run(args: argparse.Namespace) -> int:
    """Label as the parsed `args` say, and return the exit code."""
    import numpy as np
    from tqdm import tqdm

    from retinaface_tf import presets
    from retinaface_tf.annotations.custom import POINTS
    from retinaface_tf.annotations.label_file import read_part_labels, write_labels
    from retinaface_tf.annotations.self_label import add_boxes, add_faces, add_landmarks
    from retinaface_tf.common.files import require_writable
    from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with
    from retinaface_tf.evaluation.runner import read_image

    if not 0 <= args.min_score <= 1:
        raise ValueError(f"--min-score must be in [0, 1]. Received: {args.min_score}")
    if args.protocol not in PROTOCOLS:
        raise ValueError(f"--protocol must be one of {list(PROTOCOLS)}. Received: {args.protocol!r}")
    photos = read_part_labels(args.annotations, args.points or POINTS)
    for name in photos:
        if not (args.images / name).is_file():
            raise FileNotFoundError(f"{args.images / name}: no such photo; {args.annotations} names it")
    known = {label for photo in photos.values() for label in photo.classes}
    if args.classes and not known & set(args.classes):
        raise ValueError(f"--classes: no face has {args.classes}; the classes there are {sorted(known)}")
    require_writable(args.output)
    presets.require_weights(presets.load(args.preset))

    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    from retinaface_tf import RetinaFace

    model = RetinaFace.from_preset(args.preset)
    looking = {"score_threshold": min(0.5, args.min_score), "close_ups": False}
    written, left_out, added, unreadable = {}, 0, 0, []
    for name, photo in tqdm(photos.items(), unit="photo", file=sys.stderr, disable=args.quiet):
        try:
            image = read_image(args.images / name)
        except ValueError as error:  # one photo of thousands: the others are labelled all the same
            unreadable.append(str(error))
            continue
        found = detect_with(PROTOCOLS[args.protocol], lambda view: model.detect(view, **looking), image)
        if photo.boxes is None:
            labels = add_boxes(photo.landmarks, found)
            if np.isnan(labels.boxes).any():
                left_out += 1
                continue
            if args.only_boxes:
                labels.landmarks[np.isnan(photo.landmarks)] = np.nan
        else:
            may_have = np.array([not args.classes or label in args.classes for label in photo.classes], bool)
            labels = add_landmarks(photo.boxes, found, may_have, min_score=args.min_score)
            given = ~np.isnan(photo.landmarks)
            labels.landmarks[given] = photo.landmarks[given]
        if args.add_faces:
            before, labels = len(labels.boxes), add_faces(labels, found, min_score=args.min_score)
            added += len(labels.boxes) - before
        written[name] = labels
    if unreadable and len(unreadable) == len(photos):
        raise ValueError(f"no photo of {args.annotations} can be read: {unreadable[0]}")
    if not written:
        raise ValueError(f"{args.preset} agrees with no face of {args.annotations}: are {args.images} its photos?")
    write_labels(args.output, written)
    faces = sum(len(labels.boxes) for labels in written.values())
    whole = sum(int((~np.isnan(labels.landmarks)).all(axis=(1, 2)).sum()) for labels in written.values())
    lines = [
        f"{args.output}: {pluralize(len(written), 'photo')} with {pluralize(faces, 'face')}, "
        f"{whole:,} of them with all landmarks"
    ]
    if left_out:
        lines.append(f"  {left_out:6,} photos left out: the model disagrees with the labelled eyes of a face")
    if unreadable:
        lines.append(f"  {len(unreadable):6,} photos left out: can't be read, such as {unreadable[0]}")
    if args.add_faces:
        lines.append(f"  {added:6,} faces added that nobody had labelled")
    result = {"output": str(args.output), "photos": len(written), "faces": faces, "faces_with_landmarks": whole}
    result |= {"photos_left_out": left_out, "photos_unreadable": len(unreadable), "faces_added": added}
    report(args, result, "\n".join(lines))
    return 0
