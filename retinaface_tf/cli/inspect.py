"""`retinaface-tf inspect`: show statistics of shards, and photos with their labels."""

import argparse
import json
from pathlib import Path
from typing import Any

from retinaface_tf.cli.options import add_result, require_positive
from retinaface_tf.cli.output import progress, report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf inspect shards/train
  retinaface-tf inspect shards/train --contact-sheet sheet.png --photos 24 --plots plots/
  retinaface-tf inspect shards/train --contact-sheet sheet.png --augmented
  retinaface-tf inspect shards/train --contact-sheet sheet.png --augmented rotation=15 'crop_sides=[0.6,1.0,2.0]'
  retinaface-tf inspect shards/train --verify --json | jq .faces
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", metavar="DIR", help="a folder that `retinaface-tf convert` wrote")
    parser.add_argument(
        "--plots", metavar="DIR", help="write plots of the statistics to this folder (needs the extra `plots`)"
    )
    parser.add_argument(
        "--contact-sheet", metavar="FILE", help="write a .png or .jpg that shows photos with their labels"
    )
    parser.add_argument(
        "--photos", type=int, default=24, metavar="N", help="photos on the contact sheet; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed that selects the photos; default: %(default)s"
    )
    parser.add_argument(
        "--augmented",
        nargs="*",
        action="extend",
        metavar="NAME=VALUE",
        help="show each photo before and after augmentation; NAME=VALUE changes an option of the augmentation",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=640,
        metavar="N",
        help="side of the augmented images in pixels; default: %(default)s",
    )
    parser.add_argument("--verify", action="store_true", help="check the sha256 of every shard")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Inspect as the parsed `args` say, and return the exit code."""
    from retinaface_tf.common.imports import import_tensorflow
    from retinaface_tf.data.manifest import open_shards

    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if args.contact_sheet and Path(args.contact_sheet).suffix.lower() not in formats:
        raise ValueError(f"--contact-sheet must end in {', '.join(formats)}. Received: {args.contact_sheet}")
    require_positive(args, "photos")
    if args.augmented is not None and not args.contact_sheet:
        raise ValueError("--augmented needs --contact-sheet FILE")
    options = _options(args.augmented or [])
    manifest, paths = open_shards(args.shards, verify=args.verify)
    import_tensorflow()
    augmentation = None
    if args.augmented is not None:
        from retinaface_tf.data.augment import Augmentation
        from retinaface_tf.data.pipeline import check_options

        check_options(Augmentation, options)
        try:
            augmentation = Augmentation(args.image_size, **options)
        except TypeError as error:
            raise ValueError(f"--augmented: a value of the wrong kind ({error}). Received: {options}") from None
    from retinaface_tf.data.inspect import read_contents, statistics

    total = manifest["counts"]["photos"]
    with progress(total, "photo", quiet=args.quiet) as bar:
        contents = read_contents(paths, bar.update)
    if len(contents.counts) != total:
        raise ValueError(f"{args.shards}: the manifest says {total} photos, the shards hold {len(contents.counts)}")
    written = []
    if args.plots:
        from retinaface_tf.data.inspect import plot_contents

        written += plot_contents(args.plots, contents)
    if args.contact_sheet:
        from retinaface_tf.common.files import atomic_write
        from retinaface_tf.data.inspect import before_and_after, read_photos
        from retinaface_tf.image.drawing import contact_sheet

        path = Path(args.contact_sheet)
        photos = read_photos(paths, args.photos, total, args.seed)
        if augmentation:
            photos = before_and_after(photos, augmentation, args.seed)
        sheet = contact_sheet(photos)
        with atomic_write(path, "wb") as file:
            sheet.save(file, format=formats[path.suffix.lower()], quality=92)
        written.append(path)
    found = statistics(contents)
    lines = [as_table(found), *_problems(manifest), *(f"written: {path}" for path in written)]
    report(args, {**found, "problems": manifest["counts"]["problems"]}, "\n".join(lines), is_table=True)
    return 0


def _options(words):
    """Words NAME=VALUE as a dict; values are JSON, or a name."""
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--augmented takes NAME=VALUE, such as rotation=15. Received: {word}")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(
                f"--augmented: {name} takes a number, true, false, null or a JSON list. Received: {value}"
            ) from None
    return options


def as_table(report: dict[str, Any]) -> str:
    """The statistics as aligned text."""
    photos, faces, points = report["photos"], report["faces"], report["landmarks"]
    labeled = faces["count"] - points["none"]
    counts = f"{pluralize(photos['count'], 'photo')}, {pluralize(faces['count'], 'face')}"
    lines = [f"{counts}, {labeled:,} of them with landmarks"]

    def section(title, *columns):
        lines.append("")
        lines.append(f"{title:<32}" + "".join(f"{column:>12}" for column in columns))

    def row(name, *cells):
        lines.append(f"  {name:<30}" + "".join(f"{cell:>12}" for cell in cells))

    section("", "min", "median", "mean", "max")
    for name, values in [(f"photo {side}", photos[side]) for side in ("width", "height")] + [
        (f"faces {key}" if key.startswith("per") else f"face {key}", faces[key])
        for key in ("per photo", "size in pixels", "size as a part of the photo")
    ]:
        row(name, *(_number(values[key]) for key in ("min", "median", "mean", "max")))
    section("face size, sqrt(w x h)", "faces", "share", "landmarks")
    for name, values in report["faces by size"].items():
        row(name, f"{values['faces']:,}", _share(values["faces"], faces["count"]), f"{values['with landmarks']:,}")
    section("faces in a photo", "photos", "share")
    for name, number in report["photos by faces"].items():
        row(name, f"{number:,}", _share(number, photos["count"]))
    section("landmarks labeled", "faces", "share")
    for name, number in points.items():
        row(name, f"{number:,}", _share(number, faces["count"]))
    if labeled:
        section("landmark", "visible", "occluded")
        for name, values in report["points"].items():
            row(name, f"{values['visible']:,}", f"{values['occluded']:,}")
    if report["flags"]:
        section("flags", "faces", "share")
        for flag, values in report["flags"].items():
            for meaning, number in values.items():
                row(f"{flag}: {meaning}", f"{number:,}", _share(number, faces["count"]))
    if photos["turned by EXIF"]:
        lines += [
            "",
            f"{photos['turned by EXIF']:,} photos have an EXIF rotation; photos and labels are stored without rotation",
        ]
    return "\n".join(lines)


def _share(number, total):
    return f"{100 * number / total:.1f} %" if total else "-"


def _number(value):
    return "-" if value is None else f"{value:,.3g}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def _problems(manifest):
    from retinaface_tf.data.cleaning import PROBLEMS

    found = {kind: number for kind, number in manifest["counts"]["problems"].items() if number}
    if found:
        yield "\nproblems found by `convert`"
    for kind, number in found.items():
        yield f"  {kind:<30}{number:>12,}  {PROBLEMS[kind]}"
