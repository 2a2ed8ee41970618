"""`retinaface-tf export verify`: compare an exported model with the Python model."""

import argparse
from pathlib import Path

from retinaface_tf.cli.options import add_json, add_model
from retinaface_tf.cli.output import say, say_json

EXAMPLES = """examples:
  retinaface-tf export verify faces.tflite                                on the bundled photo, at many sizes
  retinaface-tf export verify exported/ --images photos/ --json -
  retinaface-tf export verify faces.onnx --model mine.keras --images val/ --ground-truth wider_ground_truth/
  retinaface-tf export verify faces.tflite --certificate parity.txt        also write the certificate to a file

exit codes: 0 within the tolerances, 1 above a tolerance, 2 invalid options or file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artifact", metavar="ARTIFACT", type=Path, help="exported model: SavedModel folder, .tflite or .onnx file"
    )
    add_model(parser, keras_only=True)
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        metavar="PHOTO",
        help="photos: files, folders or quoted patterns; default: bundled ones",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="PATH",
        type=Path,
        help="labels of the photos in --images DIR; adds average precision to the certificate",
    )
    parser.add_argument(
        "--runs", type=int, default=20, metavar="N", help="number of timed calls per model; default: %(default)s"
    )
    add_json(parser)
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="also write the certificate to this file")


def run(args: argparse.Namespace) -> int:
    """Verify as the parsed `args` say, and return the exit code: 1 if the artifact differs too much."""
    from retinaface_tf.common.files import atomic_write, require_writable
    from retinaface_tf.common.imports import import_tensorflow
    from retinaface_tf.loading import kind_of

    if args.runs < 1:
        raise ValueError(f"--runs must be at least 1. Received: {args.runs}")
    if kind_of(args.artifact) in ("preset", "keras"):
        raise ValueError(f"{args.artifact}: not an artifact. Expected a SavedModel folder, a .tflite or an .onnx")
    if args.certificate:
        require_writable(args.certificate)
    photos, labels = _labeled(args.images, args.ground_truth) if args.ground_truth else (_photos(args.images), None)
    import_tensorflow()
    from retinaface_tf.cli.export_options import load_model
    from retinaface_tf.evaluation.runner import read_image
    from retinaface_tf.export import certificate
    from retinaface_tf.image.loading import load_image

    read = read_image if labels else load_image
    model = load_model(args) if args.model or args.preset else None
    result = certificate.verify(args.artifact, model, photos, labels=labels, read=read, runs=args.runs)
    for path, content in ((args.json, result.to_json()), (args.certificate, str(result))):
        if path and path != "-":
            with atomic_write(path) as file:
                file.write(content)
    if args.json == "-":
        say_json(result.to_json())
    else:
        say(str(result).rstrip("\n"))
    return 0 if result.passed else 1


def _photos(images):
    """Path of each photo that is named; `None` for the bundled ones."""
    from retinaface_tf.common.files import find_photos

    if images is None:
        return None
    found, complaints, _ = find_photos(images)
    if complaints or not found:
        raise ValueError("; ".join(complaints) or "no photo to compare on")
    return {str(path): path for path, _ in found}


def _labeled(images, labels):
    """(dict name -> path, a function that returns the average precision of both) of a folder with labels."""
    from retinaface_tf.annotations.read import find_photos, read_annotations
    from retinaface_tf.evaluation.widerface import match, subset_ap

    if images is None or len(images) != 1 or not Path(images[0]).is_dir():
        raise ValueError("--ground-truth needs --images DIR, the folder of the labeled photos")
    annotations = read_annotations(labels, images[0])
    paths = find_photos(images[0], annotations)
    annotations = annotations.only(paths)

    def average_precision(**found):
        subsets = {"all": annotations.subset("all"), **annotations.subsets}
        counted = {name: keep for name, keep in subsets.items() if keep.any()}
        matched = {key: match(annotations, detections) for key, detections in found.items()}
        return {key: {name: subset_ap(matched[key], keep) for name, keep in counted.items()} for key in found}

    return paths, average_precision
