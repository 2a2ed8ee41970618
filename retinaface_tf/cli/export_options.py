"""What the export commands share: which model, which options, where to, and how a failure is told."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.cli import pages
from retinaface_tf.common.files import require_writable
from retinaface_tf.common.types import PathLike
from retinaface_tf.export.options import ExportOptions

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """`--preset` and `--model`."""
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument("--preset", metavar="NAME", help="name of a built-in model, such as mobilenet025_wider")
    which.add_argument("--model", metavar="FILE", type=Path, help="a trained model of yours (.keras)")


def add_export_arguments(
    parser: argparse.ArgumentParser,
    *,
    max_detections: int,
    needs_size: bool = False,
    force: str = "replace what is at PATH",
) -> None:
    """The options of every format; `max_detections` is the format's default, `force` what `--force` does."""
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="PATH", type=Path, help="where to write it")
    parser.add_argument("--overwrite", "--force", dest="force", action="store_true", help=force)
    size = "width and height of the images that it takes, such as 640x480"
    parser.add_argument(
        "--size",
        type=parse_size,
        required=needs_size,
        metavar="WxH",
        help=size + ("" if needs_size else "; default: any"),
    )
    parser.add_argument("--score-threshold", type=float, default=0.5, metavar="S", help="default: %(default)s")
    parser.add_argument("--nms-threshold", type=float, default=0.4, metavar="T", help="default: %(default)s")
    parser.add_argument(
        "--max-detections",
        type=int,
        default=max_detections,
        metavar="N",
        help="most faces an image, default: %(default)s",
    )
    pages.add_result_options(parser, quiet="no summary")


def parse_size(text: str) -> tuple[int, int]:
    """`640x480`, width first, as sizes are said -> (480, 640), height first, as arrays have it."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match or min(map(int, match.groups())) < 1:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 640x480. Received: {text}")
    return int(match[2]), int(match[1])


def export_options(args: argparse.Namespace) -> ExportOptions:
    """`ExportOptions` of the parsed words; ValueError for the first that is out of its range."""
    return ExportOptions(
        size=args.size,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        max_detections=args.max_detections,
        preset=args.preset,
    )


def check_output_file(args: argparse.Namespace, suffix: str) -> None:
    """See before the work whether `--output` will take a file of this suffix.

    Raises:
        ValueError: another suffix.
        OSError: it exists and there is no `--force`, or it can't be written.
    """
    if args.output.suffix != suffix:
        raise ValueError(f"--output must end in {suffix}. Received: {args.output}")
    if args.output.exists() and not args.force:
        raise FileExistsError(f"{args.output}: exists. Choose another name, or replace it with --overwrite")
    require_writable(args.output)


def load_model(args: argparse.Namespace) -> RetinaFace:
    """The `RetinaFace` that `--preset` or `--model` names; TensorFlow is imported here and not before."""
    from retinaface_tf import presets

    if args.model is None:
        presets.require_weights(presets.load(args.preset))  # answered before TensorFlow starts
    elif args.model.suffix != ".keras" or not args.model.is_file():
        raise ValueError(f"--model must be a .keras file that exists. Received: {args.model}")

    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    from retinaface_tf.detector import RetinaFace

    return RetinaFace.from_preset(args.preset if args.model is None else str(args.model))


def convert(
    export: Callable[..., Path], model: RetinaFace, path: PathLike, options: ExportOptions, **others: Any
) -> Path:
    """Call an `export_...` function; whatever its converter raises becomes one line."""
    try:
        return export(model, path, options, **others)
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # converters raise nearly anything
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(f"this model can't be converted ({type(error).__name__}: {lines[0][:200]})") from error


def report(args: argparse.Namespace, path: PathLike) -> int:
    """Say what was written."""
    path = Path(path)
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    text = f"{path}: {size / 1e6:.2f} MB\ncheck it: retinaface-tf export verify {path}"
    pages.report(args, {"output": str(path), "bytes": size}, text)
    return 0
