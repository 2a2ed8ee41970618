"""Options, checks and reports that the export commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.cli.options import add_model, add_overwrite, add_result, add_thresholds, width_and_height
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import command_line, first_line
from retinaface_tf.export.options import MAX_DETECTIONS, ExportOptions

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


def add_export_arguments(
    parser: argparse.ArgumentParser, *, replaced: str = "an existing file", any_size: bool = False
) -> None:
    """The options of every format; `replaced` says what `--overwrite` replaces. `any_size` hides `--size`."""
    add_model(parser, required=True, keras_only=True)
    parser.add_argument(
        "--output", required=True, metavar="PATH", type=Path, help="exported file; for a SavedModel its folder"
    )
    add_overwrite(parser, replaced)
    parser.add_argument(
        "--size",
        type=width_and_height,
        metavar="WxH",
        help=argparse.SUPPRESS if any_size else "fixed image size, width first, such as 640x480; default: any size",
    )
    add_thresholds(parser, score_threshold=0.5, nms_threshold=0.4, max_detections=MAX_DETECTIONS)
    add_result(parser)


def export_options(args: argparse.Namespace) -> ExportOptions:
    """`ExportOptions` of the parsed words; ValueError for the first that is out of its range."""
    return ExportOptions(
        size=args.size,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        max_detections=args.max_detections,
        preset=args.preset,
    )


def check_file(args: argparse.Namespace, suffix: str) -> ExportOptions:
    """`export_options`, and a check of `--output` for a format that is one file, before TensorFlow starts.

    Raises:
        ValueError: An option is out of its range, or `--output` has another suffix.
        OSError: The file exists and there is no `--overwrite`, or it can't be written.
    """
    from retinaface_tf.common.files import require_writable

    options = export_options(args)
    if args.output.suffix != suffix:
        raise ValueError(f"--output must end in {suffix}. Received: {args.output}")
    if args.output.exists() and not args.overwrite:
        raise FileExistsError(f"{args.output} already exists. Choose another name, or add --overwrite")
    require_writable(args.output)
    return options


def load_model(args: argparse.Namespace) -> RetinaFace:
    """The `RetinaFace` that `--preset` or `--model` names; TensorFlow is imported here and not before."""
    from retinaface_tf import presets
    from retinaface_tf.common.imports import import_tensorflow

    if args.model is None:
        presets.require_weights(presets.load(args.preset))  # answered before TensorFlow starts
    elif Path(args.model).suffix != ".keras" or not Path(args.model).is_file():
        raise ValueError(f"--model must be a .keras file that exists. Received: {args.model}")
    import_tensorflow()
    from retinaface_tf.detector import RetinaFace

    return RetinaFace.from_preset(args.model or args.preset)


def write_artifact(
    args: argparse.Namespace, export: Callable[..., Path], model: RetinaFace, options: ExportOptions, **others: Any
) -> int:
    """Call an `export_...` function, report what it wrote, and return the exit code.

    Whatever its converter raises becomes one line.
    """
    try:
        path = export(model, args.output, options, **others)
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # converters raise nearly anything
        reason = first_line(error, 200)
        raise ValueError(f"this model can't be converted ({type(error).__name__}: {reason})") from error
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    verify = command_line("retinaface-tf", "export", "verify", path)
    report(args, {"output": str(path), "bytes": size}, f"{path}: {size / 1e6:.2f} MB\ncheck it: {verify}")
    return 0
