"""The command `retinaface-tf`: parse the command line, make one call, print one result.

Only the asked-for command's module is imported, and none of them imports NumPy, Pillow or TensorFlow before it runs:
`--help` and a mistyped option are answered at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import retinaface_tf
from retinaface_tf.cli.options import finish
from retinaface_tf.cli.output import complain, console, exit_code_of, failed_output
from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.text import first_line, printable
from retinaface_tf.common.types import PhotoWarning

EXAMPLES = """examples:
  retinaface-tf detect photo.jpg --output out/
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/
  retinaface-tf train --preset mobilenet025_wider --data shards/ --output runs/first
  retinaface-tf export tflite --preset mobilenet025_wider --output faces.tflite

`retinaface-tf COMMAND --help` lists the options of a command, with examples."""
REPORTS = ("json", "csv", "certificate", "write_detections", "write_ground_truth")  # options of files of text to write
OUTPUTS = ("output", "contact_sheet")  # options of other files, or folders
RESULT_SUFFIXES = (".json", ".jsonl", ".csv")  # of results that a further run may replace
OWN_FILES = ("manifest.json", "run.json", "preset.json", "config.json")  # which folders need to be read again
LONGEST_LINE = 2000  # letters of a complaint


class Command(NamedTuple):
    """One command: its module of `retinaface_tf.cli`, and what it does in one line without a full stop.

    A module has `EXAMPLES`, `add_arguments(parser)` and `run(args) -> int`, the exit code. Bad input is a ValueError
    or an OSError of one line, which `main` prints.
    """

    module: str
    summary: str

    def load(self) -> ModuleType:
        return import_module(f"retinaface_tf.cli.{self.module}")


class Group(NamedTuple):
    """Commands of two words: `convert weights`."""

    summary: str
    title: str
    examples: str
    kinds: dict[str, Command]


COMMANDS: dict[str, Command | Group] = {
    "detect": Command("detect", "find faces in photos, a video or a camera stream"),
    "batch": Command("batch", "find faces in millions of photos, on many cores or machines, and write Parquet files"),
    "convert": Group(
        "convert weights of other projects, or labeled photos to training shards",
        "what to convert",
        """examples:
  retinaface-tf convert weights Resnet50_Final.pth --preset resnet50 --output resnet50.keras
  retinaface-tf convert custom --images photos/ --annotations faces.csv --output shards/""",
        {
            "weights": Command(
                "convert_weights", "convert a PyTorch checkpoint or a .keras file to a preset's weights"
            ),
            "widerface": Command("convert_widerface", "convert WIDER FACE to TFRecord shards"),
            "custom": Command(
                "convert_custom", "convert your own labeled photos (COCO, Pascal VOC, YOLO, CSV) to TFRecord shards"
            ),
        },
    ),
    "label": Command("label", "add missing boxes and landmarks to labels with a model"),
    "label3d": Command("label3d", "add 3D vertex labels to TFRecord shards, fitted to the landmarks"),
    "train": Command("train", "train a detector on shards from `convert`"),
    "inspect": Command("inspect", "show statistics of TFRecord shards, and photos with their labels"),
    "evaluate": Group(
        "measure the accuracy of a detector",
        "what to measure",
        """examples:
  retinaface-tf evaluate widerface --preset mobilenet025_wider --images WIDER_val/images --detections found/
  retinaface-tf evaluate photos --preset mobilenet025_wider --images photos/ --ground-truth f.csv --detections out/""",
        {
            "widerface": Command(
                "evaluate_widerface", "WIDER FACE AP (Easy, Medium, Hard) as the official tool computes it"
            ),
            "photos": Command("evaluate_photos", "AP on your own labeled photos"),
            "fddb": Command("evaluate_fddb", "FDDB detection rate at 1,000 false positives, and ROC curves"),
            "landmarks": Command("evaluate_landmarks", "landmark errors: NME, failure rate, cumulative curve"),
            "verification": Command("evaluate_verification", "face verification: TAR at given FARs, from embeddings"),
            "coco": Command("evaluate_coco", "COCO AP, and conversion to and from COCO JSON"),
            "robustness": Command(
                "evaluate_robustness", "AP on rotated, compressed, noisy and small photos, and by face size and flag"
            ),
        },
    ),
    "export": Group(
        "export a model to another format, and verify the result",
        "what to do",
        """examples:
  retinaface-tf export saved_model --preset mobilenet025_wider --output exported/
  retinaface-tf export verify exported/""",
        {
            "saved_model": Command(
                "export_saved_model",
                "export a TensorFlow SavedModel as a numbered version, for TensorFlow Serving",
            ),
            "tflite": Command("export_tflite", "export a LiteRT (TFLite) file, with non-maximum suppression inside"),
            "onnx": Command("export_onnx", "export an ONNX file, with non-maximum suppression inside"),
            "verify": Command(
                "export_verify", "compare an exported file with the Python model on photos, and print a certificate"
            ),
        },
    ),
    "thresholds": Command(
        "thresholds", "find the score threshold for a precision, recall or false positives per image"
    ),
    "completion": Command("completion", "print a completion script for bash, zsh or tcsh"),
}


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Args:
        words: The words to be parsed: of commands that they don't begin with, only the summary is there. `None` fills
            in all of them.

    Returns:
        Parser whose result has `run`, a function of itself.
    """
    parser = argparse.ArgumentParser(
        prog="retinaface-tf",
        description="Find every face in a photo: a box, a score and five landmarks each.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"retinaface-tf {retinaface_tf.__version__}")
    _add(parser.add_subparsers(title="commands", metavar="COMMAND", required=True), COMMANDS, words)
    finish(parser)
    return parser


def _add(subparsers: Any, commands: dict[str, Any], words: Sequence[str] | None) -> None:
    for name, command in commands.items():
        summary = command.summary
        parser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if words is not None and [name] != list(words[:1]):
            continue
        rest = None if words is None else words[1:]
        if isinstance(command, Group):
            parser.epilog = command.examples
            _add(parser.add_subparsers(title=command.title, metavar="KIND", required=True), command.kinds, rest)
        else:
            module = command.load()
            parser.epilog = module.EXAMPLES
            module.add_arguments(parser)
            parser.set_defaults(run=module.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected failure is one line on standard error."""
    words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
    with console():
        code = _run(words)
    if error := failed_output():
        complain(first_line(error))
        return code or 2
    return code


def _run(words: list[str]) -> int:
    try:
        args = build_parser(words).parse_args(words)
        _refuse_empty(words)
        _refuse_to_replace(vars(args))
        with tensorflow_needed("this command"), _one_line_warnings():
            return args.run(args)
    except KeyboardInterrupt as interrupt:
        complain("interrupted")
        return exit_code_of(interrupt)
    except (ValueError, OSError, ImportError) as error:
        text = (
            first_line(error, max_length=LONGEST_LINE) if isinstance(error, OSError) else " ".join(str(error).split())
        )
        complain(text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…")
        return 2


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print our own warnings as one line, and none of the libraries', unless Python's `-W` says otherwise."""
    if sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PhotoWarning)
        warnings.showwarning = lambda message, *_, **__: complain(printable(str(message)))
        yield


def _refuse_empty(words: list[str]) -> None:
    """Refuse an empty word, as a shell makes it of a variable that is not set: it would name the current folder."""
    for before, word in zip(["", *words], words, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            option = word[:-1] or (before if before.startswith("-") else "a file or folder")
            raise ValueError(f"{option}: expected a value. Received an empty one: is a variable not set?")


def _refuse_to_replace(options: dict[str, Any]) -> None:
    """Refuse a result that can't be written, or that would replace a photo or another file that the command names."""
    from retinaface_tf.common.files import PHOTO_SUFFIXES, is_stream, require_writable, resolve

    texts = (*REPORTS, *options.get("texts", ()))
    written = {f"--{name.replace('_', '-')}": options[name] for name in (*REPORTS, *OUTPUTS) if options.get(name)}
    written = {option: Path(word) for option, word in written.items() if str(word) != "-"}
    for option, path in written.items():
        if option[2:].replace("-", "_") in texts:
            require_writable(path)
            if {path.suffix.lower(), resolve(path).suffix.lower()} & set(PHOTO_SUFFIXES):
                raise ValueError(f"{option} expects the name of a report. Received the name of a photo: {path}")
            if path.is_file() and (path.suffix.lower() not in RESULT_SUFFIXES or path.name.lower() in OWN_FILES):
                _refuse_inside(option, path, options)
    written = {option: path for option, path in written.items() if not is_stream(path)}
    places = {resolve(path): option for option, path in written.items()}
    there = {_inode(path): option for option, path in written.items() if path.is_file()}
    for option, path in written.items():
        if places[resolve(path)] != option:
            raise ValueError(f"{option} and {places[resolve(path)]} name the same file, {path}. Give each its own")
    for name, value in options.items() if there else ():
        for word in value if isinstance(value, list) else [value]:
            if name not in (*REPORTS, *OUTPUTS) and isinstance(word, str | Path) and _inode(word) in there:
                raise ValueError(f"{there[_inode(word)]} would replace {word}, which the command reads. Choose another")


def _refuse_inside(option: str, path: Path, options: dict[str, Any]) -> None:
    """Refuse to replace a file in a folder that the command reads: a label, a shard, a manifest."""
    from retinaface_tf.common.files import resolve

    for name, value in options.items():
        for word in value if isinstance(value, list) else [value]:
            if name in OUTPUTS or not isinstance(word, str | Path) or not Path(word).is_dir():
                continue
            if resolve(word) in resolve(path).parents:
                raise ValueError(f"{option} would replace {path}, in a folder that the command reads. Choose another")


def _inode(path: str | Path) -> tuple[int, int] | None:
    """What is the same for all names of a file; `None` if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a word that no path can be is no error here
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


if __name__ == "__main__":
    sys.exit(main())
