"""`retinaface-tf evaluate coco`: to and from COCO's JSON, and COCO AP by faster-coco-eval or pycocotools."""

import argparse
from pathlib import Path

from retinaface_tf.cli.evaluation_options import add_model_run, add_output, add_scoring, read_and_detect
from retinaface_tf.cli.output import report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf evaluate coco --ground-truth faces.json --images photos/ --preset mobilenet025_wider --detections found/
  retinaface-tf evaluate coco --ground-truth faces.csv --detections found/ --write-detections coco.json --no-score
  retinaface-tf evaluate coco --ground-truth faces.csv --detections found/ --write-ground-truth gt.json --only-present
  retinaface-tf evaluate coco --ground-truth wider_ground_truth/ --detections found/ --subset hard
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scoring(parser)
    parser.add_argument(
        "--write-detections", metavar="FILE", type=Path, help="also write the detections as a COCO result list"
    )
    parser.add_argument("--write-ground-truth", metavar="FILE", type=Path, help="also write the labels as COCO JSON")
    parser.add_argument("--no-score", action="store_true", help="convert only; compute no AP")
    add_model_run(parser)
    add_output(parser, plots=False)


def run(args: argparse.Namespace) -> int:
    """Convert and score as the parsed `args` say, and return the exit code."""
    import json

    from retinaface_tf.annotations.coco import to_coco
    from retinaface_tf.common.files import atomic_write
    from retinaface_tf.evaluation.coco import coco_ap, to_coco_detections

    annotations, detections = read_and_detect(args)
    truth = to_coco(annotations, annotations.subset(args.subset))
    found = to_coco_detections(annotations, detections)
    for path, content in ((args.write_ground_truth, truth), (args.write_detections, found)):
        if path is not None:
            with atomic_write(path) as file:
                file.write(json.dumps(content) + "\n")
    result = {"photos": len(annotations), "detections": len(found), "subset": args.subset}
    if not args.no_score:
        result["coco"] = coco_ap(truth, found)
    report(args, result, _text(result), is_table=True)
    return 0


def _text(result):
    lines = [
        f"{pluralize(result['photos'], 'photo')}, {pluralize(result['detections'], 'detection')}, "
        f"subset {result['subset']}"
    ]
    if "coco" in result:
        numbers = {key: value for key, value in result["coco"].items() if key != "tool"}
        lines.append(f"by {result['coco']['tool']}, percent, at most 100 detections a photo")
        lines.append("".join(f"{key:>11}" for key in numbers))
        lines.append("".join(f"{'-' if value is None else f'{100 * value:.2f}':>11}" for value in numbers.values()))
    return "\n".join(lines)
