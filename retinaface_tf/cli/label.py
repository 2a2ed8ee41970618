"""`retinaface-tf label`: add missing boxes and landmarks to labels with a model."""

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
      the labels have boxes: landmarks are added to faces of class `bare` where the model is confident
  retinaface-tf label --images photos/ --annotations eyes.csv --output faces.csv --points left_eye right_eye
      the labels have eyes: boxes and other landmarks are added where the model finds the same eyes
  retinaface-tf label --images photos/ --annotations eyes.csv --output faces.csv --only-boxes --add-faces
      the labels have eyes: only boxes are added, and faces that have no label
  retinaface-tf label --images photos/ --output faces.csv --scales 1,2 --flip --min-score 0.6 --detections d.jsonl
      no labels: faces that the model finds at several sizes become labels; an interrupted run can resume
  retinaface-tf label --images crowds/ --points heads.csv --output faces.csv --scales 1,1.5,2,3 --flip
      the labels have a point on each head: detections on a point become labels, other points become ignore regions

If the model finds no box for a labeled face, the photo is left out, because the face would be trained as background.
With --scales, the face becomes an ignore region instead: training uses it neither as a face nor as background.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="DIR", type=Path, help="folder of the photos")
    parser.add_argument("--annotations", metavar="PATH", type=Path, help=f"{LABELS}; optional with --scales")
    parser.add_argument(
        "--output", required=True, metavar="FILE", type=Path, help="CSV file to write, for `convert custom`"
    )
    add_model(parser, default=PRESET, runtime=True)
    add_protocol(parser)
    parser.add_argument(
        "--points",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"labeled landmarks to trust: {', '.join(LANDMARK_NAMES)}; default: all. With --scales and "
        "without --annotations: a .csv with the columns file, x, y and one point per head",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="classes of faces with visible landmarks; default: all",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="S",
        help="lowest score of a trusted detection; default: 0.9, with --scales 0.5",
    )
    parser.add_argument(
        "--scales",
        metavar="S,S,...",
        help="self-labeling: merge the detections at these sizes of the photo, such as 1,1.5,2,3",
    )
    parser.add_argument("--flip", action="store_true", help="with --scales: also detect in the mirrored photo")
    parser.add_argument(
        "--detections",
        "--looks",
        dest="looks",
        metavar="FILE",
        type=Path,
        help="with --scales: save the detections in FILE, so that an interrupted run can resume",
    )
    parser.add_argument("--only-boxes", action="store_true", help="add boxes only; unlabeled landmarks stay unlabeled")
    parser.add_argument("--add-faces", action="store_true", help="also add high-scoring detections without a label")
    add_result(parser)
    parser.set_defaults(texts=("output",))


def run(args: argparse.Namespace) -> int:
    """Label as the parsed `args` say, and return the exit code."""
    from retinaface_tf.annotations.annotations import annotate_photo, join
    from retinaface_tf.annotations.complete import believe_landmarks, complete
    from retinaface_tf.annotations.csv import write_csv
    from retinaface_tf.annotations.read import locate_files, read_annotations
    from retinaface_tf.annotations.text import visible_files
    from retinaface_tf.cli.options import find_settings, open_model
    from retinaface_tf.common.files import PHOTO_SUFFIXES, require_file, require_writable
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
                f"{args.images / file}: no such photo, but {args.annotations or args.points[0]} names it"
            )
    known = set(annotations.classes)
    if args.classes and not known & set(args.classes):
        raise ValueError(f"--classes: no face has {args.classes}. Classes in the labels: {sorted(known)}")
    if args.looks:
        require_writable(args.looks)
        if args.looks.exists():
            require_file(args.looks)
    model = open_model(args.preset, args.model, runtime=args.runtime)
    options: dict[str, Any] = {"score_threshold": min(0.5, min_score), "resize": None, "close_ups": False}
    if scales:
        options |= {"score_threshold": DOUBT, "max_detections": 2000}
    looks, settings = {}, None
    if args.looks:
        settings = find_settings(
            args.preset, args.model, args.runtime, {**options, "scales": scales, "flip": args.flip}
        )
        looks = read_looks(args.looks, settings) if args.looks.is_file() else {}
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
                append_look(args.looks, file, seen, settings)
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
        raise ValueError(f"no photo of {args.annotations or args.images} can be read: {unreadable[0]}")
    if not len(written):
        name = args.model or args.preset
        if not args.annotations:
            raise ValueError(f"{name} finds no face in the photos of {args.images}")
        raise ValueError(
            f"{name} finds none of the faces in {args.annotations}. Are the photos of these labels in {args.images}?"
        )
    write_csv(args.output, written)
    faces = written.num_faces - int(written.ignore.sum())
    whole = int((written.visible != NOT_LABELED).all(axis=1).sum())
    lines = [
        f"{args.output}: {pluralize(len(written), 'photo')} with {pluralize(faces, 'face')}, "
        f"{whole:,} of them with all landmarks"
    ]
    if left_out:
        lines.append(f"  {left_out:6,} photos left out: the model found no face with the labeled eyes")
    if unreadable:
        lines.append(f"  {len(unreadable):6,} photos left out: can't be read, such as {unreadable[0]}")
    if scales:
        lines.append(f"  {written.num_faces - faces:6,} ignore regions: perhaps a face; not used in training")
    if args.add_faces or scales:
        lines.append(f"  {added:6,} faces added that had no label")
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
        raise ValueError("--flip and --detections need --scales")
    given = args.points or []
    if len(given) == 1 and given[0].lower().endswith(".csv"):
        if not scales or args.annotations:
            raise ValueError("--points FILE needs --scales and can't be combined with --annotations")
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
