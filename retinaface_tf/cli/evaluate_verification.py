"""Face verification (TAR at FAR, as IJB-C) from embeddings: does better alignment help recognition?"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.cli import evaluation_options as common
from retinaface_tf.evaluation.plots import plot_curves
from retinaface_tf.evaluation.verification import FARS, pair_similarities, pool_templates, tar_at_far
from retinaface_tf.evaluation.wider_report import without_nan

HELP = "TAR at FAR from embeddings and template and pair lists"
EXAMPLES = """examples:
  retinaface-tf evaluate verification --embeddings a.npy b.npy --templates templates.txt --pairs pairs.txt
  retinaface-tf evaluate verification --embeddings a.npy --templates t.txt --pairs p.txt --far 1e-4 1e-3 --json -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinaface-tf evaluate verification`."""
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="one or more .npy arrays [images, size], e.g. of two alignments to compare; NaN rows are faces not found",
    )
    parser.add_argument(
        "--templates", metavar="FILE", type=Path, required=True, help="a line an image: name, template, medium"
    )
    parser.add_argument(
        "--pairs", metavar="FILE", type=Path, required=True, help="a line a pair: template, template, 1 if same person"
    )
    parser.add_argument("--scores", metavar="FILE", type=Path, help=".npy of a weight an image, e.g. detector scores")
    parser.add_argument("--far", type=float, nargs="+", action="extend", help="default: 1e-6 to 1e-1")
    common.add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Pool, compare and count. Returns 0; raises ValueError or OSError with one line on bad input."""
    templates = _read_columns(args.templates, (1, 2), "name, template, medium")
    pairs = _read_columns(args.pairs, (0, 1, 2), "template, template, 0 or 1")
    weights = None if args.scores is None else _load(args.scores, 1)
    result: dict[str, Any] = {"pairs": len(pairs), "images": len(templates), "runs": {}}
    curves = {}
    for path in args.embeddings:
        embeddings = _load(path, 2)
        if len(embeddings) != len(templates):
            raise ValueError(f"{path} has {len(embeddings)} rows, {args.templates} has {len(templates)} images")
        ids, features = pool_templates(embeddings, templates[:, 0], templates[:, 1], weights)
        similarities = pair_similarities(ids, features, pairs[:, 0], pairs[:, 1])
        rows = tar_at_far(similarities, pairs[:, 2] == 1, args.far or FARS)
        missing = int((~np.isfinite(embeddings).all(axis=1)).sum())
        result["runs"][str(path)] = {"faces_not_found": missing, "rates": rows}
        curves[path.stem] = ([row["far"] for row in rows], [row["tar"] for row in rows])
    if args.plots is not None:
        labels: dict[str, Any] = {
            "x_label": "false accept rate",
            "y_label": "true accept rate",
            "title": f"{len(pairs)} pairs",
        }
        plot_curves(args.plots / "tar_at_far.png", curves, **labels, log_x=True, markers=True)
    common.report(args, without_nan(result), _text(result))
    return 0


def _text(result):
    lines = [f"{result['pairs']} pairs of templates, {result['images']} images; TAR % (95 % interval)"]
    for name, one in result["runs"].items():
        lines.append(f"{name}: {one['faces_not_found']} faces not found")
        for row in one["rates"]:
            low, high = row["interval_95"]
            note = "" if row["measurable"] else "   too few impostors for this rate: none is accepted"
            lines.append(f"  FAR {row['far']:<8g}{100 * row['tar']:7.2f}  ({100 * low:.2f}-{100 * high:.2f}){note}")
    return "\n".join(lines)


def _load(path, dimensions):
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy array: {error}") from error
    if array.ndim != dimensions:
        raise ValueError(f"{path}: expected an array of {dimensions} dimensions. Received: shape {array.shape}")
    return array


def _read_columns(path, columns, expected):
    try:
        table = np.loadtxt(path, dtype=np.int64, usecols=columns, ndmin=2)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected lines of {expected}. {str(error).splitlines()[0]}") from error
    if not len(table):
        raise ValueError(f"{path} is empty: expected lines of {expected}")
    return table
