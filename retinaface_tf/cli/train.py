"""`retinaface-tf train`: shards to weights, by a preset's recipe; interrupted, the same command goes on."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import LABELS
from retinaface_tf.cli.options import add_protocol, add_result
from retinaface_tf.cli.output import complain, note, report, say

STRATEGIES = ("auto", "mirrored", "multiworker", "tpu", "none")
EXAMPLES = """examples:
  retinaface-tf train --preset mobilenet025 --data shards/train --output runs/first
  retinaface-tf train --preset mobilenet025 --data shards/mine --output runs/mine --weights mobilenet025_wider \\
      --set epochs=20 schedule.learning_rate=1e-4 schedule.decay_epochs=[15] freeze.calibrate=8
  retinaface-tf train --preset resnet50 --data shards/train --output runs/r50 --strategy mirrored \\
      --validation-images WIDER_val/images --validation-labels eval_tools/ground_truth
  retinaface-tf train --preset mobilenet025 --print-config

The run's folder holds log.csv (a row an epoch), steps.csv, tensorboard/, checkpoints/ and, at the end, model.keras:
retinaface-tf detect --model runs/first/model.keras photo.jpg
Ctrl-C saves a checkpoint and stops; the same command goes on from there, as it does after a kill.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", required=True, metavar="NAME", help="architecture and recipe")
    parser.add_argument(
        "--data", nargs="+", action="extend", metavar="DIR", help="folders that `retinaface-tf convert` wrote"
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the run, made or gone on with")
    parser.add_argument("--weights", metavar="FILE", help="preset or .keras file to start from; default: the recipe's")
    parser.add_argument("--strategy", choices=STRATEGIES, default="auto", help="devices; default: what is there")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="fields of the recipe to change"
    )
    parser.add_argument("--print-config", action="store_true", help="print the recipe with the changes, and stop")
    group = parser.add_argument_group("validation, each `validate_every` epochs and after the last")
    group.add_argument("--validation-images", metavar="DIR", type=Path, help="folder of photos")
    group.add_argument("--validation-labels", metavar="PATH", type=Path, help=LABELS)
    add_protocol(group, "--validation-protocol")
    parser.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases too (extra `wandb`)")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Train as the parsed `args` say, and return the exit code."""
    import json

    from retinaface_tf import presets
    from retinaface_tf.training.config import override, parse_overrides, read_recipe, to_dict

    changes = parse_overrides(args.set)
    if args.weights:
        changes["weights"] = args.weights
    if args.preset.endswith(".keras"):
        raise ValueError(
            f"--preset takes one of {presets.names()}, or a folder with a preset.json; a file is given by --weights. "
            f"Received: {args.preset!r}"
        )
    config = override(read_recipe(args.preset), changes)
    if args.print_config:
        say(json.dumps(to_dict(config), indent=1))
        return 0
    for option in ("data", "output"):
        if not getattr(args, option):
            raise ValueError(f"--{option} is missing: expected a folder")
    if (args.validation_images is None) != (args.validation_labels is None):
        raise ValueError("--validation-images and --validation-labels belong together")

    from retinaface_tf.common.imports import import_tensorflow
    from retinaface_tf.data.manifest import open_shards

    for folder in args.data:
        open_shards(folder)  # what is wrong with them is said before TensorFlow starts
    if config.weights is None and "weights" in presets.load(config.preset):
        line = f"{args.preset} is taken as an architecture: its own weights are a start with --weights {args.preset}"
        complain(line)
    import_tensorflow()
    from retinaface_tf.training.checkpoint import Interrupted
    from retinaface_tf.training.trainer import train

    score, monitor = _validation(args, config) if args.validation_images else (None, None)
    try:
        path = train(
            config,
            args.data,
            args.output,
            strategy=args.strategy,
            score=score,
            monitor=monitor,
            wandb=args.wandb,
            verbose=0 if args.quiet or args.json == "-" else 1,
        )
    except Interrupted as stopped:
        complain(f"{stopped}, after a checkpoint; the same command goes on with {args.output}")
        return 128 + stopped.number
    report(args, {"output": str(args.output), "model": str(path)}, f"written: {path}")
    return 0


def _validation(args, config):
    """(function of the model that returns AP by subset, the name of the hardest)."""
    from PIL import Image

    from retinaface_tf.annotations.read import find_photos, read_annotations
    from retinaface_tf.training.validation import FaceAP

    ground_truth = read_annotations(args.validation_labels, args.validation_images)
    photos = find_photos(args.validation_images, ground_truth)
    hardest = [*ground_truth.subsets, "all"][max(0, len(ground_truth.subsets) - 1)]
    if not ground_truth.only(photos).subset(hardest).any():
        raise ValueError(
            f"{args.validation_labels}: no face of the subset {hardest!r} in the {len(photos)} photos of "
            f"{args.validation_images}: there is no AP to measure"
        )
    callback = FaceAP(photos, ground_truth, every=config.validate_every, protocol=args.validation_protocol)

    def score(model):
        callback.set_model(model)
        return callback.score()

    for path in photos.values():  # a look at each header, now rather than after the first epochs
        try:
            with Image.open(path):
                pass
        except OSError as error:
            raise ValueError(f"{path}: not a photo that can be read ({error.strerror or 'unknown format'})") from None
    if len(photos) < len(ground_truth.names):
        note(f"validation: {len(photos)} of the {len(ground_truth.names)} labeled photos are there")
    return score, f"val_ap_{hardest}"
