"""`retinaface-tf batch`: find faces in millions of photos."""

import argparse
import os
from pathlib import Path

from retinaface_tf.cli.detect import add_options_of_detect
from retinaface_tf.cli.options import PRESET, THRESHOLDS, add_json, add_model, require_positive
from retinaface_tf.cli.output import complain, exit_code_of, progress, report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  retinaface-tf batch photos/ --output faces/                         on all cores of this machine
  retinaface-tf batch 'crawl/*.parquet' --output faces/ --model faces.onnx --image-column image
  retinaface-tf batch photos/ --output /shared/faces --ray-address auto --workers 64 --threads 2
  retinaface-tf batch photos/ --output faces/ --part-size 1000 --resize own    files with 1,000 photos each

Run the same command again to resume: finished parts are skipped.
exit codes: 0 all photos done, 1 some failed, 2 invalid options or no photo, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="photo, folder, .parquet or .tfrecord file, or quoted pattern"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the Parquet files")
    add_model(parser, default=PRESET, runtime=True)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="number of workers; default: one per core"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores per worker; default: 1")
    parser.add_argument(
        "--part-size",
        type=int,
        metavar="N",
        help="photos per part, which becomes one file; default: two parts per worker, at most 500 photos",
    )
    parser.add_argument(
        "--image-column",
        default="image",
        metavar="NAME",
        help="column or feature that holds encoded photos; default: %(default)s",
    )
    parser.add_argument("--ray-address", metavar="ADDRESS", help="address of a Ray cluster; default: this machine")
    add_json(parser)
    add_options_of_detect(parser)


def run(args: argparse.Namespace) -> int:
    """Detect as the parsed `args` say, and return the exit code."""
    from retinaface_tf import loading, presets
    from retinaface_tf.cli.options import find_settings
    from retinaface_tf.common.files import resolve
    from retinaface_tf.inference.predictor import check_options
    from retinaface_tf.integrations.batch.run import plan_batch, require_ray, run_batch

    options = {name: getattr(args, name) for name in (*THRESHOLDS, "resize")}
    options |= {"batch_size": args.batch_size, "close_ups": not args.no_close_ups}
    options |= {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    said = {name: value for name, value in options.items() if value is not None and name != "close_ups"}
    check_options(**{**THRESHOLDS, "resize": None, **said})
    require_positive(args, "workers", "threads", "part_size")
    model = args.model or args.preset
    loading.needs_tensorflow(model, args.runtime)  # refuses what is no model, by the name that was given
    if model not in presets.names():
        model = str(resolve(model))
    require_ray()
    settings = find_settings(None, model, args.runtime, options)
    options |= {name: settings[name] for name in THRESHOLDS}

    folder = resolve(args.output)
    lasting = {name: value for name, value in settings.items() if name != "batch_size"}
    lasting["image_column"] = args.image_column
    plan = plan_batch(args.inputs, folder, lasting, part_size=args.part_size, workers=args.workers)
    for line in [*plan.complaints, *([] if args.quiet else plan.notes)]:
        complain(line)
    worker = {
        "model": model,
        "options": options,
        "column": args.image_column,
        "threads": args.threads,
        "runtime": args.runtime,
    }
    try:
        with progress(len(plan.parts), "part", quiet=args.quiet or not plan.parts) as bar:
            total = run_batch(
                plan,
                folder,
                worker,
                workers=args.workers,
                address=args.ray_address,
                progress=lambda numbers: bar.update(),
            )
    except KeyboardInterrupt as interrupt:
        complain("interrupted; run the same command again to resume")
        return exit_code_of(interrupt)
    failed = sum(plan.done.values())
    earlier = f"; {len(plan.done)} were there already, {failed} of them failed" if plan.done else ""
    done = total["photos"] - total["errors"]
    counts = f"{pluralize(done, 'photo')}, {pluralize(total['faces'], 'face')}, {total['errors']:,} failed"
    result = {"output": str(args.output), **total, "photos_before": len(plan.done), "errors_before": failed}
    report(args, result, f"{counts}{earlier}; rows in {args.output}")
    if args.quiet and (failed or total["errors"]):
        complain(f"{pluralize(failed + total['errors'], 'photo')} failed: see the column `error` in {args.output}")
    return int(bool(failed or total["errors"] or plan.complaints))
