"""Detect faces in photo files: a report entry for each photo, and the pictures, crops and meshes that are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retinaface_tf.common.files import distinct_names, fit_name, resolve
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike, Resize
from retinaface_tf.image.drawing import PICTURE_FORMATS, blur, draw, save_picture
from retinaface_tf.image.loading import load_reduced
from retinaface_tf.inference import report
from retinaface_tf.inference.stream import describe_error, detect_stream

if TYPE_CHECKING:
    import numpy as np

    from retinaface_tf.inference.detections import Detections


class Photo(NamedTuple):
    """A photo to detect in: its name in the report, a path or bytes, and where its picture goes, if anywhere."""

    name: str
    source: Any
    target: Path | None = None


class Outputs(NamedTuple):
    """The files that are written for each photo.

    Attributes:
        folder: Folder of the pictures; crops and meshes go to `crops` and `obj` in it.
        picture: Whether the picture is written, at the photo's target.
        blur: Whether faces are blurred in it, not marked.
        crops: Whether an aligned crop of each face is written.
        obj: Whether the mesh of each face is written, where the model has a dense branch.
    """

    folder: Path
    picture: bool = True
    blur: bool = False
    crops: bool = False
    obj: bool = False

    def are_in(self, entry: dict[str, Any], target: Path | None) -> bool:
        """Whether a photo's entry of a report names all that `save` would write for it, and the files exist."""
        if self.picture and (entry.get("picture") != report.file_name(target) or not target or not target.is_file()):
            return False
        return all(
            kind in entry and target and all(path.is_file() for path in self._files(kind, target, len(entry["faces"])))
            for kind in ("crops", "obj")
            if getattr(self, kind)
        )

    def _files(self, kind, target, count):
        """Paths of the crops or meshes of a photo's faces."""
        folder = self.folder / kind / target.relative_to(self.folder).parent
        suffix = {"crops": "png", "obj": "obj"}[kind]
        return [folder / fit_name(target.stem, f"_{number}.{suffix}") for number in range(count)]

    def save(self, image: np.ndarray, detections: Detections, target: Path) -> dict[str, Any]:
        """Write the files of one photo. Returns what was written: `picture`; `crops` and `obj`, one for each face.

        Raises:
            OSError: A file can't be written.
        """
        from PIL import Image

        from retinaface_tf.image.align import align

        written: dict[str, Any] = {}
        if self.picture:
            save_picture((blur if self.blur else draw)(image, detections), target)
            written["picture"] = report.file_name(target)
        if self.obj and detections.vertices is not None and detections.topology is not None:
            from retinaface_tf.dense.texture import write_obj  # wants SciPy, which a small install lacks

            paths = self._files("obj", target, len(detections))
            for path, vertices in zip(paths, detections.vertices, strict=True):
                write_obj(path, vertices, detections.topology, image)
            written["obj"] = [report.file_name(path) for path in paths]
        if self.crops:
            paths = self._files("crops", target, len(detections))
            for path, crop in zip(paths, align(image, detections.landmarks), strict=True):
                save_picture(Image.fromarray(crop), path)
            written["crops"] = [report.file_name(path) for path in paths]
        return written


def report_photos(
    detect: Callable[[list[Any]], Iterable[Detections]],
    photos: Iterable[Photo],
    *,
    batch_size: int = 8,
    workers: int = 1,
    resize: Resize = None,
    max_pixels: int | None = None,
    outputs: Outputs | None = None,
    pose: bool = False,
) -> Iterator[tuple[Photo, dict[str, Any]]]:
    """Detect in photo after photo and write the files of each.

    Args:
        detect: Function of a list of images that returns as many `Detections`.
        resize: As `detect` has it. Where nothing is written of a photo but its entry, a JPEG that will be shrunk is
            decoded at a smaller size.
        max_pixels: As in `load_image`.
        outputs: What is written for photos with a target; `None` for nothing.
        pose: Whether the entries hold the head pose of each face.

    Yields:
        (photo, its entry of the report), in order. A photo that failed has an `error` in its entry.
    """
    sources = ((photo, photo.source) for photo in photos)
    long_side = max(resize) if isinstance(resize, tuple) and outputs is None else None
    read = partial(load_reduced, long_side=long_side, max_pixels=max_pixels)
    for result in detect_stream(detect, sources, read=read, batch_size=batch_size, workers=workers):
        photo: Photo = result.key
        if result.error is not None or result.detections is None or result.image is None:
            error = describe_error(photo.name, result.error or ValueError("no result"))
            yield photo, report.entry(photo.name, error=error)
            continue
        try:
            files = outputs.save(result.image, result.detections, photo.target) if outputs and photo.target else {}
        except OSError as failure:
            yield photo, report.entry(photo.name, error=report.file_name(first_line(failure)))
            continue
        yield photo, {**report.entry(photo.name, result.detections, pose=pose), **files}


def plan_pictures(photos: Sequence[tuple[Path, Path]], folder: PathLike) -> list[Path]:
    """Where the picture of each photo (path, name below its folder) goes: a distinct path for each."""
    targets = []
    for name in distinct_names([name for _, name in photos]):
        is_known = name.suffix.lower() in PICTURE_FORMATS
        targets.append(Path(folder) / (name if is_known else name.with_name(fit_name(name.name, ".png"))))
    return targets


def refuse_to_overwrite(photos: Iterable[Path], targets: Iterable[Path]) -> None:
    """Raise ValueError if one of the files to be written is one of the photos."""
    originals = {resolve(path) for path in photos}
    for target in targets:
        if resolve(target) in originals:
            raise ValueError(
                f"{target} is one of the photos and would be overwritten. Choose another folder: --output DIR"
            )
