"""`retinaface-tf evaluate verification`: TAR at FAR, as IJB-C, from embeddings of one or more alignments."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import add_output
from retinaface_tf.cli.output import report

EXAMPLES = """examples:
  retinaface-tf evaluate verification --embeddings a.npy b.npy --templates templates.txt --pairs pairs.txt
  retinaface-tf evaluate verification --embeddings a.npy --templates t.txt --pairs p.txt --far 1e-4 1e-3 --json -
  retinaface-tf evaluate verification --embeddings a.npy --templates t.txt --pairs p.txt --scores scores.npy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help=".npy array [images, size] of embeddings, NaN if no face was found; several files are compared",
    )
    parser.add_argument(
        "--templates",
        metavar="FILE",
        type=Path,
        required=True,
        help="text file with one line per image: image name, template id, media id",
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        type=Path,
        required=True,
        help="text file with one line per pair: two template ids, and 1 for the same person or 0",
    )
    parser.add_argument(
        "--scores", metavar="FILE", type=Path, help=".npy with a weight per image, such as the detection score"
    )
    parser.add_argument(
        "--far", type=float, nargs="+", action="extend", help="false accept rates; default: 1e-6 to 1e-1"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Pool, compare and count as the parsed `args` say, and return the exit code."""
    from retinaface_tf.evaluation.plots import plot_curves
    from retinaface_tf.evaluation.verification import FARS, evaluate_verification
    from retinaface_tf.evaluation.widerface import without_nan

    result = without_nan(
        evaluate_verification(args.embeddings, args.templates, args.pairs, scores=args.scores, fars=args.far or FARS)
    )
    if args.plots is not None:
        curves = {
            Path(name).stem: ([row["far"] for row in one["rates"]], [row["tar"] for row in one["rates"]])
            for name, one in result["runs"].items()
        }
        plot_curves(
            args.plots / "tar_at_far.png",
            curves,
            x_label="false accept rate",
            y_label="true accept rate",
            title=f"{result['pairs']} pairs",
            log_x=True,
            markers=True,
        )
    report(args, result, _text(result), is_table=True)
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
