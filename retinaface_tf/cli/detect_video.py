"""`retinaface-tf detect clip.mp4` and `--camera 0`: write a video with marked faces, and JSON lines."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from retinaface_tf.cli.options import given_thresholds, open_model
from retinaface_tf.cli.output import StandardOutput, complain, progress, say
from retinaface_tf.common.files import atomic_write, is_video, require_writable, resolve
from retinaface_tf.common.text import pluralize, printable

OF_PHOTOS_ALONE = ("csv", "crops", "resume", "no_pictures", "obj", "pose")


def run(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Detect as the parsed `args` say, `options` being those of `detect`, and return the exit code."""
    from retinaface_tf.inference.video.clip import Clip
    from retinaface_tf.inference.video.faces import FaceTracker, annotate_clip, faces_in_frames
    from retinaface_tf.inference.video.writer import ENCODERS, VideoWriter

    _check(args)
    is_camera = args.camera is not None
    video, report = _places(args, tuple(ENCODERS))
    for path in (video, report if report != "-" else None):
        if path:
            require_writable(path)
    if is_camera:
        options = {**options, "batch_size": 1}  # a batch would wait for its last frame
    with Clip(**({"camera": args.camera} if is_camera else {"source": args.inputs[0]})) as clip:
        if video and not is_camera and resolve(video) == resolve(args.inputs[0]):
            raise ValueError(f"{video} is the input video and would be overwritten. Choose another name: --output OUT")
        if clip.colors:
            complain(f"{clip.name}: {clip.colors}")
        tracker = None if args.no_tracks else FaceTracker(float(clip.rate))
        model = open_model(args.preset, args.model, runtime=args.runtime, thresholds=given_thresholds(args))
        frames: Iterable[Any] = clip if args.frames is None else islice(clip, args.frames)
        seen: Iterator[Any] = faces_in_frames(model, frames, tracker=tracker, **options)
        total = min((n for n in (clip.frames, args.frames) if n is not None), default=None)
        with ExitStack() as stack:
            writer = stack.enter_context(VideoWriter(video, clip)) if video else None
            lines: Any = None
            if report:
                lines = StandardOutput() if report == "-" else stack.enter_context(atomic_write(report))
            bar = stack.enter_context(progress(total, "frame", quiet=args.quiet))
            summary = annotate_clip(
                seen,
                writer=writer,
                lines=lines,
                hide=args.blur,
                batch_size=options["batch_size"],
                may_stop=is_camera,
                progress=bar.update,
            )
            if not summary.frames:
                raise ValueError(f"{clip.name}: none of its frames can be decoded")
    if clip.damaged:
        complain(f"{clip.name}: {clip.damaged} damaged frames")
    if clip.missing:
        complain(f"{clip.name}: the file is truncated: its last {clip.missing:.1f} seconds are missing")
    if writer and writer.silent:
        complain(f"{video}: {writer.silent}")
    if not args.quiet and report != "-":
        parts = [pluralize(summary.frames, "frame"), pluralize(summary.faces, "face")]
        parts += [] if args.no_tracks else [pluralize(summary.tracks, "track")]
        if summary.frames_per_second:
            parts.append(f"{summary.frames_per_second:.1f} frames per second")
        places = [printable(place) for place in (video, report) if place]
        say("; ".join([", ".join(parts), *["stopped"] * summary.stopped, *places]))
    return int(bool(clip.damaged or clip.missing))


def _check(args: argparse.Namespace) -> None:
    if args.camera is not None and args.inputs:
        raise ValueError(f"--camera can't be combined with a PHOTO. Received: {args.inputs[0]}")
    if len(args.inputs) > 1:
        raise ValueError(f"a video is processed alone: run one command per video. Received: {len(args.inputs)} inputs")
    for name in OF_PHOTOS_ALONE:
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} is only for photos. For a video use --output and --json")
    if args.blur and not args.output:
        raise ValueError("--blur needs a file for the video: --output OUT.mp4")
    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames must be at least 1. Received: {args.frames}")


def _places(args: argparse.Namespace, suffixes: tuple[str, ...]) -> tuple[str | None, str | None]:
    """(the clip to write, the JSON lines to write), each a path or None; "-" is standard output."""
    if not args.output:
        return None, args.json
    if Path(args.output).suffix.lower() in suffixes:
        return args.output, args.json
    if is_video(args.output):
        raise ValueError(f"videos are saved as {', '.join(suffixes)}. Received: {args.output}")
    stem = "camera" if args.camera is not None else Path(args.inputs[0]).stem
    return str(Path(args.output) / f"{stem}.mp4"), args.json or str(Path(args.output) / f"{stem}.jsonl")
