"""`retinaface-tf batch`: photos beyond counting in, Parquet files of faces out."""

import argparse
import os
import sys
from pathlib import Path

from retinaface_tf.cli.pages import report
from retinaface_tf.common.text import pluralize

HELP = "find the faces in millions of photos, on many cores or machines, as Parquet"
EXAMPLES = """examples:
  retinaface-tf batch photos/ --output faces/                         on all cores of this machine
  retinaface-tf batch 'crawl/*.parquet' --output faces/ --model faces.onnx --image-column image
  retinaface-tf batch photos/ --output /shared/faces --ray-address auto --workers 64

the same command again goes on where it was interrupted and passes over what is done
exit codes: 0 all photos done, 1 some failed, 2 unusable options or no photo at all, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from retinaface_tf.cli.detect import add_options_of_detect

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="photo, folder, .parquet, .tfrecord, quoted pattern")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the rows")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--preset", default="mobilenet025_wider", metavar="NAME", help="default: %(default)s")
    model.add_argument("--model", metavar="PATH", help="a .keras, .tflite or .onnx file, or a SavedModel")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores of each worker, default: 1")
    parser.add_argument("--part-size", type=int, default=500, metavar="N", help="photos of a part, default: 500")
    parser.add_argument("--image-column", default="image", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a Ray cluster; default: this machine alone")
    parser.add_argument("--json", metavar="FILE", help="write the counts as JSON; - for standard output")
    add_options_of_detect(parser)


def run(args: argparse.Namespace) -> int:
    """Detect as the parsed `args` say, and return the exit code."""
    from retinaface_tf import loading as runtimes
    from retinaface_tf import presets
    from retinaface_tf.cli.detect import DEFAULTS
    from retinaface_tf.inference.predictor import check_options
    from retinaface_tf.integrations.batch import output
    from retinaface_tf.integrations.batch.ray_run import require_ray, run_parts
    from retinaface_tf.integrations.batch.sources import find_parts

    options = {name: getattr(args, name) for name in (*DEFAULTS, "resize")}
    options |= {"batch_size": args.batch_size, "close_ups": not args.no_close_ups}
    said = {name: value for name, value in options.items() if value is not None and name != "close_ups"}
    check_options(**{**DEFAULTS, "resize": None, **said})
    for name in ("workers", "threads", "part_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1. Received: {getattr(args, name)}")
    model = args.model or args.preset
    kind = runtimes.kind_of(model)
    if model not in presets.names():
        model = str(Path(model).resolve())
    require_ray()
    # What an artifact can't answer to is said once, and not of each photo. Only some formats fix anything, and
    # opening those is quick; a model in Python has the usual defaults.
    if kind in ("tflite", "onnx"):
        options |= runtimes.load(model, threads=1).thresholds(*(options[name] for name in DEFAULTS))
    elif kind in ("preset", "keras"):
        options |= {name: usual for name, usual in DEFAULTS.items() if options[name] is None}

    folder = args.output.resolve()
    lasting = {name: value for name, value in options.items() if name not in ("batch_size", "resize")}
    lasting |= {"resize": args.resize and list(args.resize), "image_column": args.image_column}
    output.open_folder(folder, model, lasting)
    done = output.photos_done(folder)
    parts, complaints = find_parts(args.inputs, args.part_size, done, skip=folder)
    there = {path.name for path in output.parts_done(folder)}
    left = [part for part in parts if part.name not in there]
    for complaint in complaints:
        print(f"retinaface-tf: {complaint}", file=sys.stderr)
    if not parts and not done:
        raise ValueError("no photo to look at")
    worker = {
        "model": model,
        "output": str(folder),
        "options": options,
        "column": args.image_column,
        "threads": args.threads,
    }
    total = {"photos": 0, "faces": 0, "errors": 0}
    try:
        _work(
            args,
            run_parts(left, worker, workers=args.workers, threads=args.threads, address=args.ray_address),
            total,
            left,
        )
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        print("retinaface-tf: interrupted; the same command goes on", file=sys.stderr)
        return 130
    output.remove_leftovers(folder)
    failed = sum(done.values())
    earlier = f"; {len(done)} were there already, {failed} of them failed" if done else ""
    counts = f"{pluralize(total['photos'], 'photo')}, {pluralize(total['faces'], 'face')}, {total['errors']:,} failed"
    result = {"output": str(args.output), **total, "photos_before": len(done), "errors_before": failed}
    report(args, result, f"{counts}{earlier}; rows in {args.output}")
    return int(bool(failed or total["errors"] or complaints))


def _work(args, results, total, left):
    from tqdm import tqdm

    if not left:
        return
    with tqdm(total=len(left), unit="part", file=sys.stderr, disable=args.quiet) as bar:
        for result in results:
            for name in total:
                total[name] += result[name]
            bar.set_postfix(photos=total["photos"], refresh=False)
            bar.update()
