"""`retinaface-tf detect clip.mp4` and `--camera 0`: a moving picture in, one with its faces and JSON lines out."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from retinaface_tf.common.files import atomic_write, is_video, require_writable
from retinaface_tf.common.text import pluralize
from retinaface_tf.inference.video.clip import Clip, Frame
from retinaface_tf.inference.video.faces import Seen, faces_in_frames
from retinaface_tf.inference.video.tracking import FaceTracker
from retinaface_tf.inference.video.writer import ENCODERS, VideoWriter

OF_PHOTOS_ALONE = ("csv", "crops", "resume", "no_pictures")


def run(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Detect as the parsed `args` say, `options` being those of `detect`, and return the exit code."""
    _check(args)
    video, report = _places(args)
    for path in (video, report if report != "-" else None):
        if path:
            require_writable(path)
    source: dict[str, Any] = {"camera": args.camera} if args.camera is not None else {"source": args.inputs[0]}
    with Clip(**source) as clip:
        if video and args.camera is None and Path(video).resolve() == Path(args.inputs[0]).resolve():
            raise ValueError(f"{video} is the clip itself and would be overwritten. Choose another name: --output OUT")
        from retinaface_tf.cli.photo_work import load_model

        if args.camera is not None:
            options = {**options, "batch_size": 1}  # a batch would wait for its last frame
        tracker = None if args.no_tracks else FaceTracker(float(clip.rate))
        model = load_model(args)
        return _work(args, clip, video, report, faces_in_frames(model, _some(clip, args), tracker=tracker, **options))


def _work(args: argparse.Namespace, clip: Clip, video: str | None, report: str | None, seen: Iterator[Seen]) -> int:
    from tqdm import tqdm

    frames, faces, tracks = 0, 0, set()
    batch = 1 if args.camera is not None else args.batch_size
    first, begun = 0, time.monotonic()  # the first batch waits for the network to be built: it is no measure
    interrupted = False
    total = min(n for n in (clip.frames, args.frames, 10**9) if n is not None)
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(video, clip)) if video else None
        lines: IO[str] | None = None
        if report:
            lines = sys.stdout if report == "-" else stack.enter_context(atomic_write(report))
        bar = stack.enter_context(
            tqdm(total=None if total == 10**9 else total, unit="frame", file=sys.stderr, disable=args.quiet)
        )
        try:
            for one in seen:
                if lines:
                    lines.write(json.dumps(one.to_dict()) + "\n")
                if writer:
                    writer.write(one.frame, _picture(args, one))
                frames, faces = frames + 1, faces + len(one.faces)
                if frames == batch:
                    first, begun = frames, time.monotonic()
                tracks |= {track for track in one.tracks if track is not None}
                bar.update()
        except KeyboardInterrupt:
            if args.camera is None:  # a part of a clip is half a file: the stack leaves none
                raise
            interrupted = True  # a camera has no other end
        if not frames:
            raise ValueError(f"{clip.name}: no frame of it can be decoded")
    if clip.damaged:
        print(f"retinaface-tf: {clip.name}: {clip.damaged} damaged frames", file=sys.stderr)
    if clip.missing:
        print(f"retinaface-tf: {clip.name}: breaks off {clip.missing:.1f} seconds before its end", file=sys.stderr)
    if writer and writer.silent:
        print(f"retinaface-tf: {video}: {writer.silent}", file=sys.stderr)
    if not args.quiet and report != "-":
        parts = [pluralize(frames, "frame"), pluralize(faces, "face")]
        parts += [] if args.no_tracks else [pluralize(len(tracks), "track")]
        if frames > first:
            parts.append(f"{(frames - first) / (time.monotonic() - begun):.1f} frames a second")
        places = [place for place in (video, report) if place]
        print("; ".join([", ".join(parts), *["stopped"] * interrupted, *places]))
    return int(bool(clip.damaged or clip.missing))


def _check(args: argparse.Namespace) -> None:
    if args.camera is not None and args.inputs:
        raise ValueError(f"--camera takes no PHOTO beside it. Received: {args.inputs[0]}")
    if len(args.inputs) > 1:
        raise ValueError(f"a clip is looked at alone: one command for each. Received: {len(args.inputs)} inputs")
    for name in OF_PHOTOS_ALONE:
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} is for photos: a clip has --output and --json")
    if args.blur and not args.output:
        raise ValueError("--blur needs a place for the clip: --output OUT.mp4")
    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames must be at least 1. Received: {args.frames}")


def _places(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """(the clip to write, the JSON lines to write), each a path or None; "-" is standard output."""
    if not args.output:
        return None, args.json
    suffix = Path(args.output).suffix.lower()
    if suffix in ENCODERS:
        return args.output, args.json
    if is_video(args.output):
        raise ValueError(f"a video is written as {', '.join(ENCODERS)}. Received: {args.output}")
    stem = "camera" if args.camera is not None else Path(args.inputs[0]).stem
    return str(Path(args.output) / f"{stem}.mp4"), args.json or str(Path(args.output) / f"{stem}.jsonl")


def _some(clip: Clip, args: argparse.Namespace) -> Iterator[Frame]:
    """The clip's frames, or the first `--frames` of them."""
    for frame in clip:
        yield frame
        if args.frames is not None and frame.index + 1 >= args.frames:
            return


def _picture(args: argparse.Namespace, seen: Seen) -> np.ndarray:
    from retinaface_tf.image.drawing import blur, draw

    if args.blur:
        return np.asarray(blur(seen.frame.image, seen.faces))
    names = ["" if track is None else f"#{track}" for track in seen.tracks]
    return np.asarray(draw(seen.frame.image, seen.faces, names))
