"""The work behind `retinaface-tf detect`: photo after photo decoded, looked at, and its pictures written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_tf.common.files import atomic_write
from retinaface_tf.inference.report import file_name

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.inference.detections import Detections
    from retinaface_tf.loading import Detector


Task = tuple[Path, Path | None]  # a photo, and where its picture goes
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


def work(
    args: argparse.Namespace, tasks: list[Task], options: dict[str, Any]
) -> Iterator[tuple[Path, Detections | None, str | None]]:
    """Yield (path, detections or None, error or None) of every task, its pictures written, with a progress bar."""
    from tqdm import tqdm

    if not tasks:
        return
    model = load_model(args)
    if args.obj and model.topology is None:
        name = args.model or args.preset
        raise ValueError(f"--obj needs a model with a dense branch, which {name} has not: see docs/dense.md")
    with tqdm(total=len(tasks), unit="photo", file=sys.stderr, disable=args.quiet or len(tasks) < 2) as bar:
        for path, target, image, detections, error in _detected(model, tasks, args.batch_size, options):
            yield path, detections, error or _save_pictures(args, target, image, detections)
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


def _detected(model, tasks, batch_size, options):
    """Yield (path, target, image, detections, error); the next photos are decoded while the network runs."""
    chunks = [tasks[i : i + batch_size] for i in range(0, len(tasks), batch_size)]
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_load_all, chunks[0])
        for following in [*chunks[1:], []]:
            loaded = coming.result()
            coming = pool.submit(_load_all, following)
            yield from _detect_chunk(model, loaded, options)


def _detect_chunk(model, loaded, options):
    good = [image for _, _, image, error in loaded if error is None]
    try:
        found = iter(model.detect(good, **options) if good else [])
    except Exception:  # out of memory, most likely: the others of the chunk shall not pay for one
        if len(loaded) > 1:
            for one in loaded:
                yield from _detect_chunk(model, [one], options)
            return
        ((path, target, _, _),) = loaded
        yield path, target, None, None, f"{file_name(path)}: can't be processed ({_reason()})"
        return
    for path, target, image, error in loaded:
        yield path, target, image, None if error else next(found), error


def _reason():
    """The current exception in a few words."""
    error = sys.exc_info()[1]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _load_all(tasks):
    from retinaface_tf.image.loading import ImageError, load_image

    loaded: list[tuple[Path, Path | None, Any, str | None]] = []
    for path, target in tasks:
        try:
            loaded.append((path, target, load_image(path), None))
        except ImageError as error:
            loaded.append((path, target, None, file_name(error)))
        except MemoryError:
            loaded.append((path, target, None, f"{file_name(path)}: not enough memory to decode it"))
    return loaded


def _save_pictures(args, target, image, detections):
    """Write what `args` want of one photo; the error as a line, or None."""
    if not args.output:
        return None
    from PIL import Image

    from retinaface_tf.image.align import align
    from retinaface_tf.image.drawing import blur, draw

    try:
        if not args.no_pictures:
            _save((blur if args.blur else draw)(image, detections), target)
        if args.obj and detections.vertices is not None and detections.topology is not None:
            from retinaface_tf.dense.obj import write_obj  # wants SciPy, which a small install lacks

            folder = Path(args.output) / "obj" / target.relative_to(args.output).parent
            for number, vertices in enumerate(detections.vertices):
                write_obj(folder / f"{target.stem}_{number}.obj", vertices, detections.topology, image)
        if args.crops:
            folder = Path(args.output) / "crops" / target.relative_to(args.output).parent
            for number, crop in enumerate(align(image, detections.landmarks)):
                _save(Image.fromarray(crop), folder / f"{target.stem}_{number}.png")
    except OSError as error:
        return file_name(f"{target}: can't be written ({error.strerror or error})")
    return None


def _save(picture, path):
    """Save a PIL image; nothing of the photo's metadata, whose thumbnail would show what was blurred."""
    with atomic_write(path, "wb") as file:
        picture.save(file, format=FORMATS[path.suffix.lower()], quality=95)
