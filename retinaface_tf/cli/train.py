"""`retinaface-tf train`: train a detector by the recipe of a preset."""

import argparse
import json
from pathlib import Path

from retinaface_tf.cli.evaluation_options import LABELS
from retinaface_tf.cli.options import add_protocol, add_result, describe_presets
from retinaface_tf.cli.output import complain, note, report, say

STRATEGIES = ("auto", "mirrored", "multiworker", "tpu", "none")
EXAMPLES = """examples:
  retinaface-tf train --preset mobilenet025_wider --data shards/train --validation shards/val --output runs/first \\
      --epochs 20 --batch-size 8 --learning-rate 1e-4
  retinaface-tf train --preset mobilenet025_wider --data shards/train --output runs/first --dry-run
  retinaface-tf train --preset resnet50 --data shards/train --output runs/r50 --strategy mirrored \\
      --validation-images WIDER_val/images --validation-labels eval_tools/ground_truth --patience 20
  retinaface-tf train --preset mobilenet025_wider --data shards/train --output runs/small --image-size 320 \\
      --set data.augment.rotation=10 blend=0.7 --wandb faces
  retinaface-tf train --preset mobilenet025 --data shards/train --output runs/new --weights imagenet_body.keras \\
      --validation-images photos/ --validation-labels faces.csv --validation-protocol vga
  retinaface-tf train --preset mobilenet025 --data shards/train --output runs/scratch --from-scratch
  retinaface-tf train --preset mobilenet025 --print-config

The folder of the run contains log.csv (one row per epoch), steps.csv, tensorboard/ and checkpoints/, and at the end
model.keras, summary.json and plots. Use the model: retinaface-tf detect --model runs/first/model.keras photo.jpg

Ctrl-C saves a checkpoint and stops. Run the same command again to resume, also after a crash.
"""
FIELDS = {  # options -> fields of the recipe
    "epochs": "epochs",
    "batch_size": "data.batch_size",
    "image_size": "data.image_size",
    "learning_rate": "schedule.learning_rate",
    "seed": "seed",
    "patience": "patience",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--preset", required=True, metavar="NAME", help=describe_presets())
    parser.add_argument(
        "--data", nargs="+", action="extend", metavar="DIR", help="folders of shards from `retinaface-tf convert`"
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the run; an existing run is resumed")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="FILE",
        help="preset or .keras file to start from; default: the weights of the preset, if it has some",
    )
    start.add_argument("--from-scratch", action="store_true", help="start from random weights")
    group = parser.add_argument_group("recipe (defaults come from the preset: see --print-config)")
    group.add_argument("--epochs", type=int, metavar="N", help="number of passes over the photos")
    group.add_argument("--batch-size", type=int, metavar="N", help="photos per step, on all devices together")
    group.add_argument("--image-size", type=int, metavar="N", help="side of the training images in pixels")
    group.add_argument("--learning-rate", type=float, metavar="R", help="highest learning rate")
    group.add_argument("--seed", type=int, metavar="N", help="seed for random weights, photo order and augmentation")
    group.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without a better validation AP")
    group.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="change other fields of the recipe"
    )
    group = parser.add_argument_group(
        "validation (before training, every `validate_every` epochs, and after the last epoch)"
    )
    group.add_argument(
        "--validation", nargs="+", action="extend", metavar="DIR", help="folders of shards with validation photos"
    )
    group.add_argument(
        "--validation-images", metavar="DIR", type=Path, help="folder of validation photos, instead of shards"
    )
    group.add_argument("--validation-labels", metavar="PATH", type=Path, help=LABELS)
    add_protocol(group, "--validation-protocol")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, default="auto", help="how to use several devices; default: auto"
    )
    parser.add_argument("--print-config", action="store_true", help="print the recipe with your changes, and exit")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the data, time a few steps, estimate the duration of the run, and exit",
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no plots at the end")
    parser.add_argument("--wandb", metavar="PROJECT", help="also log to Weights & Biases (needs the extra `wandb`)")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Train as the parsed `args` say, and return the exit code."""
    from retinaface_tf import presets
    from retinaface_tf.training.config import override, parse_overrides, read_recipe, to_dict

    if args.preset.endswith(".keras"):
        raise ValueError(
            f"--preset takes one of {presets.names()}, or a folder with a preset.json; use --weights for a file. "
            f"Received: {args.preset!r}"
        )
    changes = parse_overrides(args.set)
    changes |= {field: value for name, field in FIELDS.items() if (value := getattr(args, name)) is not None}
    if args.weights:
        changes["weights"] = args.weights
    config = override(read_recipe(args.preset, args.from_scratch), changes)
    if args.print_config:
        say(json.dumps(to_dict(config), indent=1))
        return 0
    for option in ("data",) if args.dry_run else ("data", "output"):
        if not getattr(args, option):
            raise ValueError(f"--{option} is missing: expected a folder")
    if (args.validation_images is None) != (args.validation_labels is None):
        raise ValueError("--validation-images and --validation-labels must be given together")
    if args.validation and args.validation_images:
        raise ValueError("give --validation, or --validation-images and --validation-labels, not both")
    if config.patience is not None and not (args.validation or args.validation_images):
        raise ValueError("--patience needs validation photos: --validation DIR")

    from retinaface_tf.common.imports import import_tensorflow
    from retinaface_tf.data.manifest import open_shards

    for folder in [*args.data, *(args.validation or ())]:
        open_shards(folder)  # what is wrong with them is said before TensorFlow starts
    quiet = args.quiet or args.json == "-"
    import_tensorflow()
    from retinaface_tf.training.checkpoint import Interrupted
    from retinaface_tf.training.trainer import train

    validation = _validation(args, quiet)
    if args.dry_run:
        return _dry_run(args, config, validation)
    try:
        path = train(
            config,
            args.data,
            args.output,
            validation=validation,
            strategy=args.strategy,
            wandb=args.wandb,
            plots=not args.no_plots,
            verbose=0 if quiet else 1,
        )
    except Interrupted as stopped:
        complain(f"{stopped}; a checkpoint was saved. Run the same command again to resume {args.output}")
        return 128 + stopped.number
    report(args, {"output": str(args.output), "model": str(path)}, f"written: {path}")
    return 0


def _validation(args, quiet):
    """The `Validation` that the options name, or `None`."""
    from retinaface_tf.training.validation import Validation

    if args.validation:
        return Validation.of_shards(args.validation, args.validation_protocol)
    if not args.validation_images:
        return None
    validation = Validation.open(args.validation_labels, args.validation_images, args.validation_protocol)
    if validation.missing and not quiet:
        there = len(validation.photos)
        note(f"validation: {there} of the {there + validation.missing} labeled photos were found")
    return validation


def _dry_run(args, config, validation):
    from retinaface_tf.common.text import pluralize
    from retinaface_tf.training.summary import format_seconds
    from retinaface_tf.training.trainer import dry_run

    found = dry_run(config, args.data, validation=validation, strategy=args.strategy)
    lines = [
        f"data: {pluralize(found['photos'], 'photo')} with {pluralize(found['faces'], 'face')}",
        f"first step: {found['first_step_seconds']:.0f} s; each other: {found['step_seconds']:.2f} s",
        f"whole run: {pluralize(found['epochs'], 'epoch')} of {pluralize(found['steps_per_epoch'], 'step')}, about "
        f"{format_seconds(found['total_seconds'])}",
    ]
    if found["validation_seconds"] is not None:
        lines.insert(2, f"validation: {format_seconds(found['validation_seconds'])} in all")
    if found["peak_memory_mb"] is not None:
        lines.append(f"memory: {found['peak_memory_mb']:,} MB at most so far")
    report(args, found, "\n".join(lines), is_table=True)
    return 0
