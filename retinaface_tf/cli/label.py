"""`retinaface-tf label`: a model completes the labels of people, for `convert custom`."""

import argparse
from pathlib import Path
from typing import Any

from retinaface_tf.cli.evaluation_options import LABELS
from retinaface_tf.cli.options import PRESET, add_model, add_protocol, add_result
from retinaface_tf.cli.output import progress, report
from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import LANDMARK_NAMES

EXAMPLES = """examples:
  retinaface-tf label --images photos/ --annotations boxes.csv --output faces.csv --classes bare --protocol 2x
      boxes by people; landmarks from the model where the class is `bare` and the model is sure
  retinaface-tf label --images photos/ --annotations eyes.csv --output faces.csv --points left_eye right_eye
      landmarks by people; boxes and the other points from the model where its eyes agree

  retinaface-tf label --images crowds/ --points heads.csv --output faces.csv --scales 1,1.5,2,3 --flip
      no labels by people but a point on each head: the model sees each photo enlarged and mirrored too, and what it
      finds there is the label of the photo at its own size; where it is not sure there are ignore regions

Photos with a landmark-labeled face whose box can't be had are left out: it would be trained as background. With
--scales it becomes an ignore region, neither face nor background.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="folder of the photos")
    parser.add_argument("--annotations", metavar="PATH", type=Path, help=f"{LABELS}; with --scales it may be missing")
    parser.add_argument("--output", required=True, metavar="FILE", type=Path, help=".csv for `convert custom`")
    add_model(parser, default=PRESET, runtime=True)
    add_protocol(parser)
    parser.add_argument(
        "--points",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"landmarks to believe: {', '.join(LANDMARK_NAMES)}; default: all that are labeled. With --scales, "
        "without --annotations: a .csv of file, x, y with a point on each head, marked by people",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="classes whose landmarks can be seen; default: all",
    )
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="of a face that is believed, default: 0.9, with --scales 0.5"
    )
    parser.add_argument(
        "--scales",
        metavar="S,S,...",
        help="let the model teach: merge what it finds at these sizes of the photo, such as 1,1.5,2,3",
    )
    parser.add_argument("--flip", action="store_true", help="with --scales: show each size mirrored too")
    parser.add_argument(
        "--looks", metavar="FILE", type=Path, help="with --scales: keep what the model finds here, and resume from it"
    )
    parser.add_argument("--only-boxes", action="store_true", help="leave landmarks that people did not mark unlabeled")
    parser.add_argument("--add-faces", action="store_true", help="add faces with a high score that nobody labeled")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Label as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.annotations import annotate_photo, join
    from retinaface_tf.annotations.complete import believe_landmarks, complete
    from retinaface_tf.annotations.csv import write_csv
    from retinaface_tf.annotations.read import locate_files, read_annotations
    from retinaface_tf.annotations.text import visible_files
    from retinaface_tf.cli.model import open_model
    from retinaface_tf.common.files import PHOTO_SUFFIXES, require_writable
    from retinaface_tf.common.types import NOT_LABELED
    from retinaface_tf.evaluation.protocols import PROTOCOLS, detect_with
    from retinaface_tf.evaluation.runner import read_image
    from retinaface_tf.evaluation.teacher import DOUBT, append_look, look, read_looks, teach

    scales, names, heads = _teaching(args)
    min_score = args.min_score if args.min_score is not None else 0.5 if scales else 0.9
    if not 0 <= min_score <= 1:
        raise ValueError(f"--min-score must be in [0, 1]. Received: {min_score}")
    if args.annotations:
        annotations = read_annotations(args.annotations, args.images)
    else:
        files = heads or [
            path.relative_to(args.images).as_posix() for path in visible_files(args.images, *PHOTO_SUFFIXES)
        ]
        annotations = join([annotate_photo(file) for file in files])
    if names:
        annotations = believe_landmarks(annotations, names)
    photos = locate_files(args.images, annotations.files)
    for file in annotations.files:
        if file not in photos:
            raise FileNotFoundError(
                f"{args.images / file}: no such photo; {args.annotations or args.points[0]} names it"
            )
    known = set(annotations.classes)
    if args.classes and not known & set(args.classes):
        raise ValueError(f"--classes: no face has {args.classes}; the classes there are {sorted(known)}")
    require_writable(args.output)
    model = open_model(args.preset, args.model, runtime=args.runtime)
    options: dict[str, Any] = {"score_threshold": min(0.5, min_score), "close_ups": False}
    if scales:
        options |= {"score_threshold": DOUBT, "max_detections": 2000}
    looks = read_looks(args.looks) if args.looks and args.looks.is_file() else {}
    with progress(len(annotations), "photo", quiet=args.quiet) as bar:

        def detect(file):
            bar.update()
            if file in looks:
                return looks[file]
            image = read_image(photos[file])
            if not scales:
                return detect_with(PROTOCOLS[args.protocol], lambda view: model.detect(view, **options), image)
            seen = look(lambda view: model.detect(view, **options), image, scales, args.flip)
            if args.looks:
                append_look(args.looks, file, seen)
            return seen

        if scales:
            completed = teach(
                annotations,
                detect,
                points=heads,
                classes=args.classes,
                min_score=min_score,
                only_boxes=args.only_boxes,
            )
        else:
            completed = complete(
                annotations,
                detect,
                classes=args.classes,
                min_score=min_score,
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
    faces = written.num_faces - int(written.ignore.sum())
    whole = int((written.visible != NOT_LABELED).all(axis=1).sum())
    lines = [
        f"{args.output}: {pluralize(len(written), 'photo')} with {pluralize(faces, 'face')}, "
        f"{whole:,} of them with all landmarks"
    ]
    if left_out:
        lines.append(f"  {left_out:6,} photos left out: the model disagrees with the labeled eyes of a face")
    if unreadable:
        lines.append(f"  {len(unreadable):6,} photos left out: can't be read, such as {unreadable[0]}")
    if scales:
        lines.append(f"  {written.num_faces - faces:6,} ignore regions: perhaps a face, neither label nor background")
    if args.add_faces or scales:
        lines.append(f"  {added:6,} faces added that nobody had labeled")
    result = {"output": str(args.output), "photos": len(written), "faces": faces}
    result |= {"faces_with_landmarks": whole, "photos_left_out": left_out, "photos_unreadable": len(unreadable)}
    report(args, {**result, "faces_added": added}, "\n".join(lines))
    return 0


def _teaching(args):
    """(sizes of --scales, names of --points, dict file -> points of the .csv of --points); all empty without."""
    from retinaface_tf.evaluation.teacher import read_points

    scales = _scales(args.scales)
    if not scales and args.annotations is None:
        raise ValueError("--annotations is needed without --scales")
    if not scales and (args.flip or args.looks):
        raise ValueError("--flip and --looks are for --scales")
    given = args.points or []
    if len(given) == 1 and given[0].lower().endswith(".csv"):
        if not scales or args.annotations:
            raise ValueError("--points FILE is for --scales, without --annotations")
        return scales, [], read_points(given[0])
    if unknown := [name for name in given if name not in LANDMARK_NAMES]:
        raise ValueError(
            f"--points must be names of {', '.join(LANDMARK_NAMES)}, or one .csv file. Received: {unknown[0]!r}"
        )
    return scales, given, {}


def _scales(text):
    if not text:
        return []
    try:
        scales = [float(word) for word in text.split(",")]
    except ValueError:
        scales = [0.0]
    if not all(0 < scale <= 16 for scale in scales):
        raise ValueError(f"--scales must be numbers above 0 and up to 16, such as 1,1.5,2. Received: {text!r}")
    return scales
