"""The work behind `retinaface-tf detect`: photo after photo decoded, looked at, and its pictures written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.inference.report import file_name

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.detections import Detections
    from retinaface_tf.inference.predictor import Detector


Task = tuple[Path, Path | None]  # a photo, and where its picture goes


def work(
    args: argparse.Namespace, tasks: list[Task], options: dict[str, Any]
) -> Iterator[tuple[Path, Detections | None, str | None]]:
    """Yield (path, detections or None, error or None) of every task, its pictures written, with a progress bar."""
    from tqdm import tqdm

    from retinaface_tf.inference.stream import describe_error, detect_stream

    if not tasks:
        return
    model = load_model(args)
    if args.obj and model.topology is None:
        name = args.model or args.preset
        raise ValueError(f"--obj needs a model with a dense branch, which {name} has not: see docs/dense.md")
    with tqdm(total=len(tasks), unit="photo", file=sys.stderr, disable=args.quiet or len(tasks) < 2) as bar:
        photos = (((path, target), path) for path, target in tasks)
        for result in detect_stream(partial(model.detect, **options), photos, batch_size=args.batch_size):
            path, target = result.key
            if result.error is None:
                error = _save_pictures(args, target, result.image, result.detections)
            else:
                error = describe_error(str(path), result.error)
            yield path, result.detections, error
            bar.update()


def load_model(args: argparse.Namespace) -> RetinaFace | Detector:
    """The model that `--preset` or `--model` names, ready; an artifact's fixed thresholds are answered for once."""
    from retinaface_tf import loading as runtimes
    from retinaface_tf import presets

    if args.model is None:
        presets.load(args.preset)  # a mistyped name is answered before TensorFlow starts
    if args.model is None or runtimes.needs_tensorflow(args.model):
        from retinaface_tf.common.imports import import_tensorflow

        import_tensorflow()
    model = runtimes.load(args.model or args.preset)
    if hasattr(model, "thresholds"):  # what it can't answer to is said once, and not of each photo
        model.thresholds(args.score_threshold, args.nms_threshold, args.max_detections)
    return model


def _save_pictures(args, target, image, detections):
    """Write what `args` want of one photo; the error as a line, or None."""
    if not args.output:
        return None
    from PIL import Image

    from retinaface_tf.image.align import align
    from retinaface_tf.image.drawing import blur, draw, save_picture

    try:
        if not args.no_pictures:
            save_picture((blur if args.blur else draw)(image, detections), target)
        if args.obj and detections.vertices is not None and detections.topology is not None:
            from retinaface_tf.dense.obj import write_obj  # wants SciPy, which a small install lacks

            folder = Path(args.output) / "obj" / target.relative_to(args.output).parent
            for number, vertices in enumerate(detections.vertices):
                write_obj(folder / f"{target.stem}_{number}.obj", vertices, detections.topology, image)
        if args.crops:
            folder = Path(args.output) / "crops" / target.relative_to(args.output).parent
            for number, crop in enumerate(align(image, detections.landmarks)):
                save_picture(Image.fromarray(crop), folder / f"{target.stem}_{number}.png")
    except OSError as error:
        return file_name(f"{target}: can't be written ({error.strerror or error})")
    return None
