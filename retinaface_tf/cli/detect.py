"""`retinaface-tf detect`: photos, a clip or a camera in; pictures, crops and a report out."""

import argparse
import json
import sys
import time
from pathlib import Path

from retinaface_tf.cli.photo_work import work
from retinaface_tf.common.files import atomic_write, distinct_names, find_photos, is_video, require_writable
from retinaface_tf.common.text import pluralize
from retinaface_tf.inference.report import file_name

HELP = "find the faces in photos, in a clip, or through a camera"
EXAMPLES = """examples:
  retinaface-tf detect photo.jpg                                 say what is in it
  retinaface-tf detect photo.jpg more/ '*.png' --output out/     annotated pictures and out/detections.json
  retinaface-tf detect more/ --output out/ --crops --csv out/faces.csv
  retinaface-tf detect photo.jpg --json - | jq '.[0].faces'
  retinaface-tf detect party.jpg --output out/ --blur            a picture without recognisable faces
  retinaface-tf detect photo.jpg --json - --pose                 yaw, pitch and roll of each head too
  retinaface-tf detect photo.jpg --model dense.keras --output out/ --obj    each face in three dimensions
  retinaface-tf detect clip.mp4 --output out.mp4 --json out.jsonl   a clip, and a line of JSON for each frame
  retinaface-tf detect --camera 0 --json -                       until Ctrl-C

exit codes: 0 all photos done, 1 some failed, 2 unusable options or no photo at all, 130 interrupted
"""
SAVE_EVERY = 30.0  # seconds between savings of the report
DEFAULTS = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 750}
MODELS = "a .keras file, a SavedModel folder, a .tflite or an .onnx file"
LISTED_PHOTOS = 20  # up to so many photos a line each is printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("inputs", nargs="*", metavar="PHOTO", help="file, folder or quoted pattern; or one clip")
    parser.add_argument("--camera", metavar="NUMBER", help="look through a camera, such as 0 (extra `video`)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--preset", default="mobilenet025_wider", metavar="NAME", help="default: %(default)s")
    model.add_argument("--model", metavar="PATH", help=f"in place of a preset: {MODELS}")
    parser.add_argument("--output", metavar="DIR", help="folder for pictures and the report; of a clip, OUT.mp4 too")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument("--csv", metavar="FILE", help="write the report as CSV; - for standard output")
    parser.add_argument("--crops", action="store_true", help="save aligned faces, 112x112, to DIR/crops")
    parser.add_argument(
        "--obj", action="store_true", help="save faces as OBJ with their skin, to DIR/obj (dense models)"
    )
    parser.add_argument("--pose", action="store_true", help="put each head's yaw, pitch and roll into the JSON report")
    parser.add_argument("--blur", action="store_true", help="make faces unrecognisable instead of drawing boxes")
    parser.add_argument("--no-pictures", action="store_true", help="save no pictures to DIR")
    parser.add_argument("--resume", action="store_true", help="keep the photos that the JSON report has already")
    parser.add_argument("--frames", type=int, metavar="N", help="of a clip or camera, the first N; default: all")
    parser.add_argument("--no-tracks", action="store_true", help="don't follow faces from frame to frame")
    add_options_of_detect(parser)


def add_options_of_detect(parser: argparse.ArgumentParser) -> None:
    """The options of the call `detect`. Thresholds that the user leaves out are `None`: an artifact has its own."""
    for name, letter in (("score_threshold", "S"), ("nms_threshold", "T"), ("max_detections", "N")):
        usual = f"default: {DEFAULTS[name]}, or what an artifact was exported with"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(DEFAULTS[name]), metavar=letter, help=usual)
    parser.add_argument(
        "--resize", type=short_and_long, metavar="SHORTxLONG", help="such as 1600x2150; default: own size"
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-close-ups", action="store_true", help="no second look for faces that fill the frame")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def short_and_long(text: str) -> tuple[int, int]:
    """`480x640` -> (480, 640), for argparse."""
    try:
        short, long = (int(word) for word in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected SHORTxLONG in pixels, such as 1600x2150. Received: {text}"
        ) from None
    return short, long


def run(args: argparse.Namespace) -> int:
    """Detect faces as the parsed `args` say, and return the exit code."""
    from retinaface_tf.inference.predictor import check_options

    thresholds = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    options = {**thresholds, "resize": args.resize, "batch_size": args.batch_size}
    check_options(**{**DEFAULTS, **options})
    if not args.inputs and args.camera is None:
        raise ValueError("nothing to look at: name a photo, a folder, a clip, or --camera NUMBER")
    if args.camera is not None or any(is_video(word) for word in args.inputs):
        from retinaface_tf.cli import detect_video

        return detect_video.run(args, {**options, "close_ups": not args.no_close_ups})
    if args.frames is not None or args.no_tracks:
        raise ValueError(f"{'--no-tracks' if args.no_tracks else '--frames'} is for a clip or a camera")
    json_path, csv_path = _report_paths(args)
    photos, complaints, notes = find_photos(args.inputs, skip=args.output)
    for note in [] if args.quiet else notes:
        _complain(note)
    for complaint in complaints:
        _complain(complaint)
    if not photos:
        raise ValueError("no photo to look at")
    tasks = _tasks(args, photos)
    for path in (json_path, csv_path, args.output and Path(args.output) / "photo"):
        if path and path != "-":
            require_writable(path)

    entries = _finished(json_path) if args.resume else {}
    tasks = [(path, target) for path, target in tasks if file_name(path) not in entries]
    order = [file_name(path) for path, _ in photos]

    def save(json_path, csv_path):
        _write_reports([entries[file] for file in order if file in entries], json_path, csv_path)

    code, saved = 0, time.monotonic()
    talks = not args.quiet and "-" not in (json_path, csv_path)
    try:
        for path, detections, error in work(args, tasks, {**options, "close_ups": not args.no_close_ups}):
            entries[file_name(path)] = _entry(path, detections, error, args.pose)
            if error:
                _complain(error)
            elif detections is not None and talks and len(tasks) <= LISTED_PHOTOS:
                _say(f"{file_name(path)}: {pluralize(len(detections), 'face')}", sys.stdout)
            if time.monotonic() - saved > SAVE_EVERY:
                save(*(None if path == "-" else path for path in (json_path, csv_path)))
                saved = time.monotonic()
    except KeyboardInterrupt:
        _complain(f"interrupted after {len(entries)} of {len(photos)} photos; the same command with --resume goes on")
        code = 130
    save(json_path, csv_path)
    failed = sum("error" in one for one in entries.values())
    if talks:
        faces = sum(len(one.get("faces", [])) for one in entries.values())
        done = f"{pluralize(len(entries) - failed, 'photo')}, {pluralize(faces, 'face')}, {failed} failed"
        print(done + _where(args, json_path, csv_path))
    return code or int(bool(failed or complaints))


def _tasks(args, photos):
    """(photo, where its picture goes) of every photo; refuses to write over a photo."""
    from retinaface_tf.image.drawing import PICTURE_FORMATS

    names = distinct_names([name for _, name in photos])
    if not args.output:
        return [(path, None) for path, _ in photos]
    targets = [Path(args.output) / (n if n.suffix.lower() in PICTURE_FORMATS else f"{n}.png") for n in names]
    originals = {path.resolve() for path, _ in photos}
    for target in targets:
        if target.resolve() in originals and not args.no_pictures:
            raise ValueError(
                f"{target} is one of the photos and would be overwritten. Choose another folder: --output DIR"
            )
    return [(path, target) for (path, _), target in zip(photos, targets, strict=True)]


def _report_paths(args):
    json_path, csv_path = args.json, args.csv
    if json_path == csv_path == "-":
        raise ValueError("--json - and --csv - can't share standard output: give one of them a file")
    for name in ("crops", "obj", "blur"):
        if getattr(args, name) and not args.output:
            raise ValueError(
                f"--{name} needs a folder for its {'files' if name == 'obj' else 'pictures'}: --output DIR"
            )
    if args.output and not json_path and not csv_path:
        json_path = str(Path(args.output) / "detections.json")
    if args.resume and json_path in (None, "-"):
        raise ValueError("--resume needs the JSON report of the earlier run: --output DIR or --json FILE")
    return json_path, csv_path


def _finished(json_path):
    """The entries without error of an earlier run's report: dict file -> entry."""
    path = Path(json_path)
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
        return {one["file"]: one for one in entries if "error" not in one}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: expected a report of `retinaface-tf detect`, found something else ({error})"
        ) from None


def _entry(path, detections, error, pose):
    from retinaface_tf.inference import report

    return report.entry(path, detections, error, pose)


def _write_reports(entries, json_path, csv_path):
    from retinaface_tf.inference import report

    for path, render in ((json_path, report.to_json), (csv_path, report.to_csv)):
        if path == "-":
            sys.stdout.write(render(entries))
        elif path:
            with atomic_write(path) as file:
                file.write(render(entries))


def _where(args, json_path, csv_path):
    places = []
    if args.output and not args.no_pictures:
        places.append(f"pictures in {args.output}")
    if args.obj:
        places.append(f"meshes in {Path(args.output) / 'obj'}")
    if args.crops:
        places.append(f"crops in {Path(args.output) / 'crops'}")
    places += [str(path) for path in (json_path, csv_path) if path]
    return "".join(f"; {place}" for place in places)


def _complain(line):
    _say(f"retinaface-tf: {line}", sys.stderr)


def _say(line, file):
    """Print a line without tearing the progress bar."""
    from tqdm import tqdm

    tqdm.write(line, file=file)
