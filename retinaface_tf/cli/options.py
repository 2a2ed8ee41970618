"""Options that several commands share, the model that they name, and the layout of all help pages.

Imports nothing but the standard library: what needs more is imported when it is called, TensorFlow last.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.common.types import Resize
from retinaface_tf.evaluation import PROTOCOL_NAMES

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.predictor import Detector


EXIT_CODES = "exit codes: 0 done, 1 partly done or check failed, 2 invalid options or input, 130 interrupted"
PRESET = "mobilenet025_wider"
MODELS = "a .keras file, a SavedModel folder, a .tflite or an .onnx file"
MOST_SAMPLES = 100_000  # of a bootstrap
RUNTIMES = ("keras", "litert", "litert-int8", "onnx", "onnxruntime", "openvino", "tensorflow")
THRESHOLDS = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 750}  # of `detect`
LETTERS = {"score_threshold": "S", "nms_threshold": "T", "max_detections": "N"}


def finish(parser: argparse.ArgumentParser) -> None:
    """Give a parser and all below it their exit codes, and keep the line breaks of their examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    epilog = parser.epilog or ""
    if "exit codes:" not in epilog:
        parser.epilog = f"{epilog.rstrip()}\n\n{EXIT_CODES}".lstrip()
    for child in children(parser).values():
        finish(child)


def children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands: dict word -> parser, empty where it has none."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(groups[0].choices) if groups else {}


def preset_names() -> list[str]:
    """The names of the bundled presets, without importing what reads them."""
    return sorted(card.parent.name for card in (Path(__file__).parents[1] / "presets").glob("*/preset.json"))


def describe_presets() -> str:
    """The values of `--preset`, for its help."""
    return f"{', '.join(preset_names())}, or a folder with a preset.json"


def add_bootstrap(parser: Any, default: int = 0) -> None:
    parser.add_argument(
        "--bootstrap",
        metavar="N",
        type=_samples,
        default=default,
        help="bootstrap samples for 95 %% intervals, such as 1000; 0: no intervals; default: %(default)s",
    )


def _samples(text):
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not 0 <= number <= MOST_SAMPLES:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MOST_SAMPLES}. Received: {text}")
    return number


def add_model(
    parser: Any, *, default: str | None = None, required: bool = False, keras_only: bool = False, runtime: bool = False
) -> None:
    """`--preset`, `--model` and, for commands that only run it, `--runtime`.

    Args:
        parser: Parser or group of one.
        default: Name of the preset that is used where neither is given.
        required: Whether one of the two must be given.
        keras_only: Whether the command needs the model in Python, not an exported artifact.
        runtime: Whether the command takes `--runtime`.
    """
    which = parser.add_mutually_exclusive_group(required=required)
    usual = "; default: %(default)s" if default else ""
    which.add_argument("--preset", default=default, metavar="NAME", help=f"{describe_presets()}{usual}")
    which.add_argument(
        "--model",
        metavar="PATH",
        help=f"use this model instead of a preset: {'a .keras file' if keras_only else MODELS}",
    )
    if runtime:
        parser.add_argument(
            "--runtime",
            choices=RUNTIMES,
            help="library that runs the model; default: litert for presets with weights, otherwise by file format",
        )


def add_thresholds(
    parser: Any,
    *,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
) -> None:
    """`--score-threshold`, `--nms-threshold` and `--max-detections`.

    A default of `None` means the default of `detect`, or the value stored in an exported model.
    """
    defaults = {"score_threshold": score_threshold, "nms_threshold": nms_threshold, "max_detections": max_detections}
    meanings = {
        "score_threshold": "lowest score kept",
        "nms_threshold": "IoU above which the lower-scoring box is suppressed",
        "max_detections": "maximum number of faces per photo",
    }
    for name, default in defaults.items():
        usual = f"{THRESHOLDS[name]}, or the value stored in an exported model" if default is None else "%(default)s"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(THRESHOLDS[name]),
            default=default,
            metavar=LETTERS[name],
            help=f"{meanings[name]}; default: {usual}",
        )


def add_batch_size(parser: Any, default: int) -> None:
    parser.add_argument(
        "--batch-size",
        type=int,
        default=default,
        metavar="N",
        help="photos per network call; default: %(default)s",
    )


def add_protocol(parser: Any, option: str = "--protocol") -> None:
    parser.add_argument(
        option,
        choices=PROTOCOL_NAMES,
        default="original",
        help=f"size of the photos that the model sees: {', '.join(PROTOCOL_NAMES)}; default: %(default)s",
        metavar="NAME",
    )


def add_workers(parser: Any) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes; the output does not depend on it; default: one per core",
    )


def add_overwrite(parser: Any, what: str) -> None:
    """`--overwrite`, and its alias `--force`."""
    parser.add_argument("--overwrite", "--force", dest="overwrite", action="store_true", help=f"replace {what}")


def add_json(parser: Any) -> None:
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the result as JSON to FILE; to standard output if FILE is missing or -",
    )


def add_quiet(parser: Any) -> None:
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress bar and no summary; result tables are still printed"
    )


def add_result(parser: Any) -> None:
    """`--json` and `--quiet`, as `output.report` and the progress bars take them."""
    add_json(parser)
    add_quiet(parser)


def short_and_long(text: str) -> Resize:
    """`480x640` -> (480, 640), and `auto` as it is, for argparse."""
    if text in ("auto", "own"):
        return "auto" if text == "auto" else None
    try:
        short, long = (int(word) for word in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected SHORTxLONG in pixels, such as 1600x2150, or auto. Received: {text}"
        ) from None
    return short, long


def width_and_height(text: str) -> tuple[int, int]:
    """`640x480`, width first as sizes are said -> (480, 640), height first as arrays have it."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match or min(map(int, match.groups())) < 1:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 640x480. Received: {text}")
    return int(match[2]), int(match[1])


def require_positive(args: argparse.Namespace, *names: str) -> None:
    """Raise ValueError for the first of the named options that is given and below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1. Received: {value}")


def open_model(
    preset: str | None,
    path: str | None,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    thresholds: dict[str, Any] | None = None,
) -> RetinaFace | Detector:
    """Open a preset, or the model at a path.

    Args:
        preset: Name of a preset, used where `path` is `None`.
        path: Path of a .keras file or an artifact.
        runtime: As in `retinaface_tf.load`; `None` for the default of the model.
        threads: Likewise.
        thresholds: `score_threshold`, `nms_threshold` and `max_detections` of the calls to come, or `None`. An
            artifact that has fixed them otherwise is refused now, not at each photo.

    Raises:
        ValueError: Neither is given, or it is no such model.
        OSError: The file is missing.
    """
    from retinaface_tf import loading
    from retinaface_tf.common.imports import import_tensorflow

    model_name = _name_model(preset, path)
    if loading.needs_tensorflow(model_name, runtime):
        import_tensorflow()
    model = loading.load(model_name, runtime=runtime, threads=threads)
    if thresholds is not None and hasattr(model, "thresholds"):
        model.thresholds(**thresholds)
    return model


def _name_model(preset, path):
    """What `retinaface_tf.load` takes; refuses the name of a preset that is none before TensorFlow starts."""
    from retinaface_tf import presets

    if path is not None:
        return str(path)
    if preset is None:
        raise ValueError("name the model to run: --preset NAME or --model PATH")
    presets.load(preset)
    return preset


def plan_workers(preset: str | None, path: str | None, runtime: str | None, num_photos: int) -> tuple[int, int | None]:
    """The number of photos to run at the same time, and the threads of each, as `open_model` takes them.

    A photo a core is faster than all cores on each photo; but a model in TensorFlow uses all cores for each call.
    """
    from retinaface_tf import loading
    from retinaface_tf.data.shards import available_cores

    model = _name_model(preset, path)
    workers = 1 if loading.needs_tensorflow(model, runtime) else max(1, min(available_cores(), num_photos // 2))
    return workers, None if workers == 1 or loading.divides_threads(model, runtime) else 1


def find_settings(preset: str | None, path: str | None, runtime: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """All that the detections of a run depend on, JSON-ready: "model", "runtime", and `options` of `detect`.

    Thresholds that are `None` or missing become those of the model.
    """
    from retinaface_tf import loading

    model = _name_model(preset, path)
    thresholds = {name: options.get(name) for name in THRESHOLDS}
    # What an artifact can't answer to is said once, and not of each photo. Only some formats fix anything, and
    # opening those is quick; a model in Python has the usual defaults.
    if not loading.needs_tensorflow(model, runtime):
        thresholds = loading.load(model, threads=1, runtime=runtime).thresholds(**thresholds)
    elif loading.kind_of(model) in ("preset", "keras"):
        thresholds = {name: THRESHOLDS[name] if value is None else value for name, value in thresholds.items()}
    return {**loading.identify(model, runtime), **options, **thresholds}


def given_thresholds(args: argparse.Namespace) -> dict[str, Any]:
    """The thresholds that the user gave: dict without the others, for which the model has its own."""
    return {name: getattr(args, name) for name in THRESHOLDS if getattr(args, name) is not None}
