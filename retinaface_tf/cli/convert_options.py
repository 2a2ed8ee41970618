"""Options and work that `convert widerface` and `convert custom` share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.cli.options import add_overwrite, add_result, add_workers, require_positive
from retinaface_tf.cli.output import complain, exit_code_of, progress, report
from retinaface_tf.common.text import pluralize, printable
from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


RULES = {
    "folder": "folder: photos of one folder stay together",
    "name": "name: photos whose names differ only in the number at the end stay together",
    "photo": "photo: the file names show no people or events, so each photo is its own group",
}
LISTED = 3  # problems printed of each kind; all are in the manifest


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the shards; one folder per data set")
    parser.add_argument(
        "--split",
        type=float,
        metavar="F",
        help="fraction of the photos for DIR/train, such as 0.9; the others go to DIR/validation. "
        "Photos of one folder, or whose names differ only in a number, stay together",
    )
    parser.add_argument("--shards", type=int, metavar="N", help="number of shards; default: one per 256 photos")
    add_workers(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed for the order of the photos; default: 0")
    parser.add_argument(
        "--labels",
        choices=("stored", "upright"),
        default="stored",
        help="stored: labels in pixels of the file (default); upright: labels drawn after EXIF rotation",
    )
    parser.add_argument(
        "--no-decode", action="store_true", help="do not check photos by decoding them; read only their headers"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first problem in a photo or label")
    add_overwrite(parser, "existing shards")
    add_result(parser)


def convert(
    args: argparse.Namespace, annotations: Annotations, source: dict[str, Any], drop_invalid: bool = False
) -> int:
    """Write `annotations` as the parsed `args` say, print what was done, and return the exit code."""
    from retinaface_tf.common.imports import import_tensorflow
    from retinaface_tf.data.shards import ConvertOptions, default_shards, split_annotations, write_shards

    require_positive(args, "workers")
    import_tensorflow()  # which writes the shards; where it is missing, no folder is begun
    if args.split is not None and not 0 < args.split < 1:
        raise ValueError(f"--split must be a fraction above 0 and below 1, such as 0.9. Received: {args.split}")
    parts, rule = {args.output: annotations}, None
    if args.split is not None:
        *two, rule = split_annotations(annotations, args.split, seed=args.seed)
        parts = {str(Path(args.output) / name): part for name, part in zip(("train", "validation"), two, strict=True)}
    manifests = {}
    try:
        with progress(len(annotations), "photo", quiet=args.quiet) as bar:
            for output, part in parts.items():
                options = ConvertOptions(
                    shards=default_shards(len(part)) if args.shards is None else args.shards,
                    seed=args.seed,
                    labels=args.labels,
                    drop_invalid=drop_invalid,
                    decode=not args.no_decode,
                )
                manifests[output] = write_shards(
                    part,
                    args.images,
                    output,
                    options,
                    source=source if rule is None else {**source, "split": args.split, "split_by": rule},
                    workers=args.workers,
                    strict=args.strict,
                    overwrite=args.overwrite,
                    progress=bar.update,
                )
    except KeyboardInterrupt as interrupt:
        complain(f"interrupted; run the same command again to resume {args.output}")
        return exit_code_of(interrupt)
    results = [
        {"output": output, "shards": manifest["options"]["shards"], **manifest["counts"]}
        for output, manifest in manifests.items()
    ]
    result = results[0] if rule is None else {"split_by": rule, "train": results[0], "validation": results[1]}
    lines = [line for output, manifest in manifests.items() for line in _lines(output, manifest)]
    lines += [f"split by {RULES[rule]}"] if rule else []
    report(args, result, "\n".join(lines), is_table=True)
    return 0


def describe_source(kind: str, annotations: PathLike, images: PathLike) -> dict[str, Any]:
    """The source of the labels, for the manifest."""
    from retinaface_tf.data.manifest import file_sha256

    annotations = Path(annotations)
    source = {"kind": kind, "annotations": str(annotations), "images": str(images)}
    if annotations.is_file():
        source["annotations_sha256"] = file_sha256(annotations)
    return source


def _shorten(name, width=100):
    text = printable(name)
    return text if len(text) <= width else f"{text[:width]}…"


def _lines(output, manifest):
    """Summary of the conversion as text: yields lines."""
    from retinaface_tf.data.cleaning import PROBLEMS, Problem
    from retinaface_tf.data.manifest import MANIFEST

    counts = manifest["counts"]
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 1e6
    yield (
        f"{pluralize(counts['photos'], 'photo')} with {pluralize(counts['faces'], 'face')}, "
        f"{counts['faces_with_landmarks']:,} of them with landmarks, "
        f"in {pluralize(len(manifest['shards']), 'shard')} ({size:,.1f} MB) in {output}"
    )
    if counts["turned"]:
        yield f"  {counts['turned']:6,} photos have an EXIF rotation; photos and labels are stored without rotation"
    problems = [Problem(*problem) for shard in manifest["shards"] for problem in shard["problems"]]
    for kind, number in counts["problems"].items():
        if not number:
            continue
        yield f"  {number:6,} x {kind}: {PROBLEMS[kind]}"
        for problem in [problem for problem in problems if problem.kind == kind][:LISTED]:
            yield f"           {_shorten(problem.photo)}: {problem.detail}"
    if problems:
        yield f"all problems: {Path(output) / MANIFEST}"
