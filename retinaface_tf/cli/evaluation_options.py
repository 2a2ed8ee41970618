"""What the evaluation commands share: the model options, the photo options, and where the result goes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinaface_tf.cli import options, output

MAX_DETECTIONS = 750  # of a model in Python, where the command says nothing


def add_output_arguments(parser: argparse.ArgumentParser, *, plots: bool = True) -> None:
    """`--json` and, where there is a curve to draw, `--plots`."""
    group = parser.add_argument_group("result")
    options.add_json(group)
    if plots:
        group.add_argument("--plots", metavar="DIR", type=Path, help="draw the curves into this folder")


def add_model_arguments(
    parser: argparse.ArgumentParser, *, score_threshold: float = 0.02, batched: bool = True
) -> None:
    """The options of a command that can run the model itself; `batched` if it can show several images at once."""
    group = parser.add_argument_group("running the model")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--preset", metavar="NAME", help="name of a built-in model")
    which.add_argument("--model", metavar="PATH", type=Path, help="a .keras file, or an exported artifact")
    group.add_argument(
        "--score-threshold", type=float, default=score_threshold, metavar="S", help="default: %(default)s"
    )
    group.add_argument("--nms-threshold", type=float, default=0.4, metavar="T", help="default: %(default)s")
    usual = "most faces a photo, default: 750, or what an artifact was exported with"
    group.add_argument("--max-detections", type=int, metavar="N", help=usual)
    if batched:
        group.add_argument("--batch-size", type=int, default=1, metavar="N", help="images a call, default: %(default)s")
    group.add_argument("--runtime", choices=options.RUNTIMES, help="what runs the model; default: as in `detect`")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def wants_model(args: argparse.Namespace) -> bool:
    """Whether the user named a model."""
    return args.preset is not None or args.model is not None


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What makes a run the run it is: kept beside its detections."""
    return {
        **({"runtime": args.runtime} if args.runtime else {}),
        "model": args.preset or str(args.model),
        "score_threshold": args.score_threshold,
        "nms_threshold": args.nms_threshold,
        "max_detections": args.max_detections,
    }


def load_detect(args: argparse.Namespace) -> Callable[[Any], Any]:
    """The detector that the options name: a callable from one image, or a list of them with `--batch-size` over 1.

    The only place in the evaluation that knows a model exists; TensorFlow is imported here and not before.

    Sets `args.max_detections` where it was left out, so `model_settings` comes after.

    Raises:
        ValueError: No model named, one of an unknown kind, or an artifact whose thresholds are fixed otherwise.
        OSError: The file of `--model` is missing.
    """
    from retinaface_tf.cli.model import open_model

    model = open_model(args.preset, args.model, runtime=args.runtime)
    if hasattr(model, "thresholds"):  # an artifact may have fixed them
        settled = model.thresholds(args.score_threshold, args.nms_threshold, args.max_detections)
        args.max_detections = settled["max_detections"]
    elif args.max_detections is None:
        args.max_detections = MAX_DETECTIONS
    thresholds = {
        # The protocol says how often a photo is looked at, and from how far.
        "close_ups": False,
        "score_threshold": args.score_threshold,
        "nms_threshold": args.nms_threshold,
        "max_detections": args.max_detections,
    }
    if (batch_size := getattr(args, "batch_size", 1)) > 1:
        return lambda images: model.detect(images, batch_size=batch_size, **thresholds)
    return lambda image: model.detect(image, **thresholds)


def report(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """Print the text, or with `--json -` only the JSON; with `--json FILE` write that as well."""
    output.report(args, result, text, is_table=True)


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` -> (2, 4): the second of four parts; ValueError on anything else."""
    try:
        part, parts = (int(number) for number in text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise ValueError(f"--shard must be PART/PARTS, such as 1/4. Received: {text!r}")
    return part, parts
