"""`retinaface-tf label`: a model completes the labels of people, for `convert custom`."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import LABELS
from retinaface_tf.cli.options import PRESET, add_model, add_protocol, add_result
from retinaface_tf.cli.output import progress, report
from retinaface_tf.common.landmarks import LANDMARK_NAMES
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf label --images photos/ --annotations boxes.csv --output faces.csv --classes bare --protocol 2x
      boxes by people; landmarks from the model where the class is `bare` and the model is sure
  retinaface-tf label --images photos/ --annotations eyes.csv --output faces.csv --points left_eye right_eye
      landmarks by people; boxes and the other points from the model where its eyes agree

Photos with a landmark-labeled face whose box can't be had are left out: it would be trained as background.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="folder of the photos")
    parser.add_argument("--annotations", required=True, metavar="PATH", type=Path, help=LABELS)
    parser.add_argument("--output", required=True, metavar="FILE", type=Path, help=".csv for `convert custom`")
    add_model(parser, default=PRESET, runtime=True)
    add_protocol(parser)
    parser.add_argument(
        "--points",
        nargs="+",
        action="extend",
        choices=LANDMARK_NAMES,
        metavar="NAME",
        help=f"landmarks to believe: {', '.join(LANDMARK_NAMES)}; default: all that are labeled",
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
    parser.add_argument("--only-boxes", action="store_true", help="leave landmarks that people did not mark unlabeled")
    parser.add_argument("--add-faces", action="store_true", help="add faces with a high score that nobody labeled")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Label as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.complete import believe_landmarks, complete
    from retinaface_tf.annotations.csv import write_csv
    from retinaface_tf.annotations.read import locate_files, read_annotations
    from retinaface_tf.cli.model import open_model
    from retinaface_tf.common.files import require_writable
    from retinaface_tf.common.landmarks import NOT_LABELED
    from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with
    from retinaface_tf.evaluation.runner import read_image

    if not 0 <= args.min_score <= 1:
        raise ValueError(f"--min-score must be in [0, 1]. Received: {args.min_score}")
    annotations = read_annotations(args.annotations, args.images)
    if args.points:
        annotations = believe_landmarks(annotations, args.points)
    photos = locate_files(args.images, annotations.files)
    for file in annotations.files:
        if file not in photos:
            raise FileNotFoundError(f"{args.images / file}: no such photo; {args.annotations} names it")
    known = set(annotations.classes)
    if args.classes and not known & set(args.classes):
        raise ValueError(f"--classes: no face has {args.classes}; the classes there are {sorted(known)}")
    require_writable(args.output)
    model = open_model(args.preset, args.model, runtime=args.runtime)
    options = {"score_threshold": min(0.5, args.min_score), "close_ups": False}
    with progress(len(annotations), "photo", quiet=args.quiet) as bar:

        def detect(file):
            bar.update()
            image = read_image(photos[file])
            return detect_with(PROTOCOLS[args.protocol], lambda view: model.detect(view, **options), image)

        completed = complete(
            annotations,
            detect,
            classes=args.classes,
            min_score=args.min_score,
            only_boxes=args.only_boxes,
            add_unlabeled=args.add_faces,
        )
    written, left_out, unreadable, added = completed
    if unreadable and len(unreadable) == len(annotations):
        raise ValueError(f"no photo of {args.annotations} can be read: {unreadable[0]}")
    if not len(written):
        name = args.model or args.preset
        raise ValueError(f"{name} agrees with no face of {args.annotations}: are {args.images} its photos?")
    write_csv(args.output, written)
    whole = int((written.visible != NOT_LABELED).all(axis=1).sum())
    lines = [
        f"{args.output}: {pluralize(len(written), 'photo')} with {pluralize(written.num_faces, 'face')}, "
        f"{whole:,} of them with all landmarks"
    ]
    if left_out:
        lines.append(f"  {left_out:6,} photos left out: the model disagrees with the labeled eyes of a face")
    if unreadable:
        lines.append(f"  {len(unreadable):6,} photos left out: can't be read, such as {unreadable[0]}")
    if args.add_faces:
        lines.append(f"  {added:6,} faces added that nobody had labeled")
    result = {"output": str(args.output), "photos": len(written), "faces": written.num_faces}
    result |= {"faces_with_landmarks": whole, "photos_left_out": left_out, "photos_unreadable": len(unreadable)}
    report(args, {**result, "faces_added": added}, "\n".join(lines))
    return 0
