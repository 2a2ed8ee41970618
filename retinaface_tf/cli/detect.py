"""`retinaface-tf detect`: find faces in photos, a video or a camera stream."""

import argparse
import time
from pathlib import Path
from typing import Any

from retinaface_tf.cli.options import (
    PRESET,
    THRESHOLDS,
    add_batch_size,
    add_json,
    add_model,
    add_quiet,
    add_thresholds,
    short_and_long,
)
from retinaface_tf.cli.output import complain, exit_code_of, progress, say, say_json
from retinaface_tf.common.text import pluralize, printable

EXAMPLES = """examples:
  retinaface-tf detect photo.jpg                                 print the number of faces
  retinaface-tf detect photo.jpg --output result.png             the photo with boxes and landmarks
  retinaface-tf detect photos/ 'more/*.png' --output out/        annotated pictures and out/detections.json
  retinaface-tf detect photos/ --output out/ --resume            continue an interrupted run
  retinaface-tf detect photos/ --output out/ --crops --csv out/faces.csv
  retinaface-tf detect photo.jpg --json - | jq '.[0].faces'
  retinaface-tf detect photo.jpg --output out/ --blur            blur every face
  retinaface-tf detect photo.jpg --resize 1600x2150              enlarge the photo to find smaller faces
  retinaface-tf detect photo.jpg --runtime litert-int8 --resize own --score-threshold 0.7    faster, fewer faces
  retinaface-tf detect photo.jpg --json - --pose                 with yaw, pitch and roll of each head
  retinaface-tf detect photo.jpg --model dense.keras --output out/ --obj    a 3D mesh of each face
  retinaface-tf detect clip.mp4 --output out.mp4 --json out.jsonl   a video, and one line of JSON per frame
  retinaface-tf detect --camera 0 --frames 100 --no-tracks --json -    100 frames; without --frames, until Ctrl-C

exit codes: 0 all photos done, 1 some failed, 2 invalid options or no photo, 130 interrupted
"""
SAVE_EVERY = 30.0  # seconds between two saves of the report
LISTED_PHOTOS = 20  # up to this number of photos, a line is printed for each
STDIN = "-"
LARGEST_INPUT = 500_000_000  # bytes of a photo on standard input


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", metavar="PHOTO", help="photo, folder or quoted pattern; - for standard input; or one video"
    )
    parser.add_argument(
        "--camera", metavar="NUMBER", help="number or name of a camera, such as 0 (needs the extra `video`)"
    )
    add_model(parser, default=PRESET, runtime=True)
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="folder for pictures and the report; or a file: OUT.png or OUT.jpg for one photo, OUT.mp4 for a video",
    )
    add_json(parser)
    parser.add_argument("--csv", metavar="FILE", help="also write the report as CSV to FILE; - for standard output")
    parser.add_argument("--crops", action="store_true", help="save aligned faces, 112x112, to PATH/crops")
    parser.add_argument(
        "--obj", action="store_true", help="save textured 3D faces as OBJ to PATH/obj (needs a dense model)"
    )
    parser.add_argument("--pose", action="store_true", help="add yaw, pitch and roll of each head to the JSON report")
    parser.add_argument("--blur", action="store_true", help="blur faces instead of drawing boxes")
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures")
    parser.add_argument("--resume", action="store_true", help="skip photos that are already in the JSON report")
    parser.add_argument(
        "--frames", type=int, metavar="N", help="stop after N frames of a video or camera; default: all frames"
    )
    parser.add_argument("--no-tracks", action="store_true", help="do not track faces from frame to frame")
    add_options_of_detect(parser)


def add_options_of_detect(parser: argparse.ArgumentParser) -> None:
    """The options of `detect`. Thresholds that are not given are `None`: an exported model has its own."""
    add_thresholds(parser)
    parser.add_argument(
        "--resize",
        type=short_and_long,
        metavar="SHORTxLONG",
        default="auto",
        help="resize photos, such as 1600x2150; own: keep the size; default: auto, enlarge small photos to 640 pixels",
    )
    add_batch_size(parser, 8)
    parser.add_argument("--max-pixels", type=int, metavar="N", help="refuse photos with more pixels; default: 50000000")
    parser.add_argument(
        "--no-close-ups",
        action="store_true",
        help="run a single pass, without further passes for very large and small faces",
    )
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Detect faces as the parsed `args` say, and return the exit code."""
    from functools import partial

    from retinaface_tf.cli.options import find_settings, given_thresholds, open_model, plan_workers
    from retinaface_tf.common.files import find_photos, is_stream, is_video, require_writable
    from retinaface_tf.inference.photos import Outputs, report_photos
    from retinaface_tf.inference.predictor import check_options

    thresholds = given_thresholds(args)
    options = {**thresholds, "resize": args.resize, "batch_size": args.batch_size}
    check_options(**{**THRESHOLDS, **options}, max_pixels=args.max_pixels)
    options["close_ups"] = not args.no_close_ups
    if not args.inputs and args.camera is None:
        raise ValueError("no input: name a photo, a folder, a video, or --camera NUMBER")
    if args.camera is not None or any(is_video(word) for word in args.inputs) or _is_unnamed_clip(args.inputs):
        from retinaface_tf.cli import detect_video

        return detect_video.run(args, options)
    if args.frames is not None or args.no_tracks:
        raise ValueError(f"{'--no-tracks' if args.no_tracks else '--frames'} is only for a video or a camera")
    found, complaints, notes = find_photos(args.inputs, skip=args.output)
    for line in [*complaints, *([] if args.quiet else notes)]:
        complain(line)
    if not found:
        raise ValueError("no photo found")
    picture = _single_picture(args, len(found))
    json_path, csv_path = _report_paths(args, picture)
    tasks = _tasks(args, found, picture)
    for path in (json_path, csv_path, picture or (args.output and Path(args.output) / "photo")):
        if path and path != "-":
            require_writable(path)

    outputs, settings = None, {}
    if args.output:
        folder = picture.parent if picture else Path(args.output)
        outputs = Outputs(folder, not args.no_pictures, blur=args.blur, crops=args.crops, obj=args.obj)
    if json_path:
        settings = find_settings(args.preset, args.model, args.runtime, options)
        settings |= {"pictures": "blurred" if args.blur else "marked"} if outputs and outputs.picture else {}
        del settings["batch_size"]
    entries = _earlier_entries(json_path, tasks, outputs, args.pose, settings) if args.resume else {}
    order = dict.fromkeys([*(task.name for task in tasks), *entries])
    tasks = [task for task in tasks if task.name not in entries]

    def save(*, at_end):
        listed = [entries[name] for name in order if name in entries]
        paths = [path if at_end or not (path and (path == "-" or is_stream(path))) else None for path in paths_of_all]
        _write_reports(listed, *paths)

    paths_of_all = (json_path, csv_path)
    code, saved = 0, time.monotonic()
    talks = not args.quiet and "-" not in paths_of_all
    try:
        if tasks:
            workers, threads = plan_workers(args.preset, args.model, args.runtime, len(tasks))
            model = open_model(args.preset, args.model, runtime=args.runtime, threads=threads, thresholds=thresholds)
            if args.obj and model.topology is None:
                name = args.model or args.preset
                raise ValueError(f"--obj needs a model with a dense branch, and {name} has none: see docs/dense.md")
            detect = partial(model.detect, **options)
            with progress(len(tasks), "photo", quiet=args.quiet or len(tasks) < 2) as bar:
                for photo, entry in report_photos(
                    detect,
                    tasks,
                    batch_size=1 if workers > 1 else args.batch_size,
                    workers=workers,
                    resize=args.resize,
                    max_pixels=args.max_pixels,
                    outputs=outputs,
                    pose=args.pose,
                ):
                    entries[photo.name] = entry if "error" in entry else {**entry, "settings": settings}
                    if "error" in entry:
                        complain(entry["error"])
                    elif talks and len(tasks) <= LISTED_PHOTOS:
                        say(f"{printable(photo.name)}: {pluralize(len(entry['faces']), 'face')}")
                    bar.update()
                    if time.monotonic() - saved > SAVE_EVERY:
                        save(at_end=False)
                        saved = time.monotonic()
    except KeyboardInterrupt as interrupt:
        complain(
            f"interrupted after {len(entries)} of {len(found)} photos; add --resume to the same command to continue"
        )
        code = exit_code_of(interrupt)
    save(at_end=True)
    failed = sum("error" in one for one in entries.values())
    if talks:
        faces = sum(len(one.get("faces", [])) for one in entries.values())
        done = f"{pluralize(len(entries) - failed, 'photo')}, {pluralize(faces, 'face')}, {failed} failed"
        say(printable(done + _where(args, picture, json_path, csv_path)))
    return code or int(bool(failed or complaints))


def _is_unnamed_clip(words):
    """Whether one file without the suffix of a photo is a clip: FFmpeg decides, where Pillow can't open it."""
    from retinaface_tf.common.files import HEIF_SUFFIXES, PHOTO_SUFFIXES

    if (
        len(words) != 1
        or Path(words[0]).suffix.lower() in PHOTO_SUFFIXES + HEIF_SUFFIXES
        or not Path(words[0]).is_file()
    ):
        return False
    from retinaface_tf.image.loading import is_photo
    from retinaface_tf.inference.video.clip import is_clip

    return not is_photo(words[0]) and is_clip(words[0])


def _earlier_entries(path, tasks, outputs, pose, settings):
    """The entries of a report, by photo, but not those that lack something that is to be written now.

    Raises:
        OSError: It can't be read.
        ValueError: It is no report, or was made with other settings.
    """
    from retinaface_tf.common.run_folder import refuse_other_settings
    from retinaface_tf.inference.report import read_report

    if not Path(path).exists():
        return {}
    entries = {one["file"]: one for one in read_report(path) if "error" not in one}
    for task in tasks:
        entry = entries.get(task.name)
        has_poses = not pose or (entry and all("head_pose" in face for face in entry["faces"]))
        if entry and not (has_poses and (outputs is None or outputs.are_in(entry, task.target))):
            del entries[task.name]
    # Reports of version 0.1 name no settings.
    free = [] if "pictures" in settings else ["pictures"]
    advice = "Repeat the earlier options, or choose another report: --json FILE"
    for entry in entries.values():
        refuse_other_settings(path, entry.get("settings") or settings, settings, free, advice)
    return entries


def _single_picture(args, num_photos):
    """The file that `--output` names for one photo, or `None` where it names a folder."""
    from retinaface_tf.common.files import PHOTO_SUFFIXES
    from retinaface_tf.image.drawing import PICTURE_FORMATS

    if not args.output or Path(args.output).is_dir():
        return None
    suffix = Path(args.output).suffix.lower()
    if suffix not in PHOTO_SUFFIXES:
        return None
    if suffix not in PICTURE_FORMATS:
        raise ValueError(f"pictures are saved as {', '.join(PICTURE_FORMATS)}. Received: --output {args.output}")
    if num_photos > 1:
        raise ValueError(f"--output {args.output} is one picture, but there are {num_photos} photos: give a folder")
    for name in ("crops", "obj", "no_pictures"):
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} needs a folder, not one picture: --output DIR")
    return Path(args.output)


def _tasks(args, found, picture):
    """A `Photo` for each photo, with the place of its picture; refuses to write over a photo."""
    from retinaface_tf.common.files import resolve
    from retinaface_tf.inference.photos import Photo, plan_pictures, refuse_to_overwrite
    from retinaface_tf.inference.report import file_name

    if not args.output:
        targets: list[Any] = [None] * len(found)
    else:
        targets = [picture] if picture else plan_pictures(found, args.output)
        if not args.no_pictures:
            refuse_to_overwrite([path for path, _ in found], targets)
        if args.crops:
            for path, _ in found:
                if resolve(Path(args.output) / "crops") in resolve(path).parents:
                    raise ValueError(f"{path} is where the crops go. Choose another folder: --output DIR")
    sources = [_read_stdin() if str(path) == STDIN else path for path, _ in found]
    return [
        Photo(file_name(path), source, target)
        for (path, _), source, target in zip(found, sources, targets, strict=True)
    ]


def _read_stdin():
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("- reads a photo from standard input, but nothing is piped to it")
    content = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise ValueError(f"-: more than {LARGEST_INPUT:,} bytes on standard input: no photo is so large")
    return content


def _report_paths(args, picture):
    json_path, csv_path = args.json, args.csv
    if json_path == csv_path == "-":
        raise ValueError("--json - and --csv - can't share standard output: give one of them a file")
    for name in ("crops", "obj", "blur"):
        if getattr(args, name) and not args.output:
            raise ValueError(
                f"--{name} needs a folder for its {'files' if name == 'obj' else 'pictures'}: --output DIR"
            )
    if args.output and not picture and not json_path:
        json_path = str(Path(args.output) / "detections.json")
    if args.resume and json_path in (None, "-"):
        raise ValueError("--resume needs the JSON report of the earlier run: --output DIR or --json FILE")
    return json_path, csv_path


def _write_reports(entries, json_path, csv_path):
    from retinaface_tf.common.files import atomic_write
    from retinaface_tf.inference import report

    for path, render in ((json_path, report.to_json), (csv_path, report.to_csv)):
        if path and path != "-":
            with atomic_write(path) as file:
                file.write(render(entries))
    if json_path == "-":
        say_json(report.to_json(entries))
    if csv_path == "-":
        say(report.to_csv(entries).rstrip("\n"))


def _where(args, picture, json_path, csv_path):
    places = []
    if args.output and not args.no_pictures:
        places.append(f"picture {picture}" if picture else f"pictures in {args.output}")
    if args.obj:
        places.append(f"meshes in {Path(args.output) / 'obj'}")
    if args.crops:
        places.append(f"crops in {Path(args.output) / 'crops'}")
    places += [str(path) for path in (json_path, csv_path) if path]
    return "".join(f"; {place}" for place in places)
