"""Read the labels of photos in any known format, and find the photos that they name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from retinaface_tf.annotations import KINDS
from retinaface_tf.annotations.annotations import Annotations
from retinaface_tf.annotations.coco import read_coco
from retinaface_tf.annotations.csv import read_csv
from retinaface_tf.annotations.landmark_sets import read_aflw, read_list, read_pts
from retinaface_tf.annotations.text import is_file, read_lines, same_letters, shorten, visible_files
from retinaface_tf.annotations.voc import read_voc
from retinaface_tf.annotations.widerface import VAL, read_widerface
from retinaface_tf.annotations.yolo import read_yolo
from retinaface_tf.common.files import is_companion
from retinaface_tf.common.types import PathLike

READERS: dict[str, Callable[..., Annotations]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
    "widerface": read_widerface,
    "list": read_list,
    "aflw": read_aflw,
    "pts": read_pts,
}

EXPECTED = (
    "expected a .json (COCO) or .csv file, WIDER FACE's .txt or .mat, or a folder of .xml (VOC), .txt (YOLO) or .pts"
)


def read_annotations(
    path: PathLike,
    images: PathLike | None = None,
    *,
    kind: str = "auto",
    classes: Collection[str] | None = None,
    pixels: bool = True,
) -> Annotations:
    """Read labels in any of `KINDS`.

    Args:
        path: File or folder with labels.
        images: Folder of the photos. YOLO's labels need it, since they name neither photos nor sizes.
        kind: One of `KINDS`, or "auto" to tell by the content.
        classes: Names (YOLO: numbers) of the classes that are faces; None for all.
        pixels: Whether normalized coordinates (YOLO) become pixels; the photos' sizes are read for that.

    Returns:
        `Annotations`, in the order of the source.

    Raises:
        OSError: Something can't be read.
        ValueError: It is not what it should be; one line that says which file and where in it.
    """
    path = Path(path)
    kind = guess_kind(path) if kind == "auto" else kind
    if kind not in READERS:
        raise ValueError(f"`kind` must be one of {['auto', *KINDS]}. Received: kind={kind!r}")
    chosen = _Classes(classes)
    try:
        annotations = READERS[kind](path, None if images is None else Path(images), chosen)
    except (AttributeError, TypeError, KeyError, csv.Error, RecursionError) as error:  # structured otherwise
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        raise ValueError(f"{path}: not {kind} labels as docs/data.md describes ({reason})") from None
    if chosen.wanted and chosen.seen and not chosen.wanted & chosen.seen:
        there = shorten(sorted(chosen.seen), 200)
        raise ValueError(f"{path}: no face has class {sorted(chosen.wanted)}. Classes in the labels: {there}")
    if not len(annotations):
        raise ValueError(f"{path}: has no labeled photo")
    seen = set()
    for file in annotations.files:
        if file in seen:
            raise ValueError(f"{path}: labels {shorten(file)} twice. Remove one")
        seen.add(file)
    if not annotations.subsets:
        annotations = annotations.replace(subsets={"all": ~annotations.ignore})
    if pixels and annotations.normalized:
        annotations = annotations.to_pixels(_photo_sizes(annotations, Path(images or ".")))
    return annotations


def guess_kind(path: PathLike) -> str:
    """The format of a file or folder, one of `KINDS`.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: It holds none of them.
    """
    path = Path(path)
    if path.is_dir():
        if (path / VAL).is_file():
            return "widerface"
        for suffix, kind in ((".xml", "voc"), (".txt", "yolo"), (".pts", "pts")):
            if next(visible_files(path, suffix), None):
                return kind
    elif path.exists():
        suffixes = {".json": "coco", ".csv": "csv", ".mat": "widerface"}
        suffixes |= {".sqlite": "aflw", ".sqlite3": "aflw", ".db": "aflw"}
        if kind := suffixes.get(path.suffix.lower()):
            return kind
        if path.suffix.lower() == ".txt":
            first = next((line.split() for line in read_lines(path) if line.strip()), [])
            return "list" if len(first) == 15 and not first[0].startswith("#") else "widerface"
    else:
        raise FileNotFoundError(f"{path}: no such file or folder")
    raise ValueError(f"{path}: {EXPECTED}")


class _Classes:
    """The classes that are faces, as a container that records all classes it was asked for."""

    def __init__(self, wanted):
        self.wanted = {str(name) for name in wanted or ()}
        self.seen = set()

    def __contains__(self, name):
        self.seen.add(str(name))
        return not self.wanted or str(name) in self.wanted


def find_photos(images: PathLike, annotations: Annotations) -> dict[str, Path]:
    """The photos of annotations that are in a folder: dict name -> path, in the order of the annotations.

    A name that differs in letter case or Unicode form alone is taken where there is only one such file, and a photo of
    WIDER FACE is also found without its event's folder.

    Raises:
        FileNotFoundError: There is no such folder, or none of the photos in it.
        ValueError: Two files could be a photo, or two photos would be one file.
    """
    images = Path(images)
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; expected the folder of the photos")
    found = locate_files(images, annotations.files)
    if not found:
        raise FileNotFoundError(
            f"{images}: none of the {len(annotations)} photos was found; expected, for example, {annotations.files[0]}"
        )
    pairs = zip(annotations.names, annotations.files, strict=True)
    return {name: found[file] for name, file in pairs if file in found}


def locate_files(images: Path, files: Collection[str], *, flat: bool = False) -> dict[str, Path]:
    """Dict of file to path below a folder, for the files that exist; see `find_photos` for names that differ.

    With `flat` a photo may also be in the folder itself, without those that its path names.
    """
    found = {file: images / file for file in files if is_file(images / file)}
    missing = [file for file in files if file not in found]
    if not missing:
        return found
    similar: dict[str, list[Path]] = {}
    for path in images.rglob("*"):
        if not is_companion(path.name):
            similar.setdefault(same_letters(path.relative_to(images).as_posix()), []).append(path)
    taken = {path: file for file, path in found.items()}
    for file in missing:
        names = [file, PurePosixPath(file).name] if flat or _of_widerface(file) else [file]
        candidates = next((similar[key] for key in map(same_letters, names) if key in similar), [])
        candidates = [path for path in candidates if is_file(path)]
        if len(candidates) > 1:
            raise ValueError(
                f"{images}: {shorten(file)} was not found, and {len(candidates)} files have the same name in other "
                f"letter case or Unicode form, such as {shorten(candidates[0].name)}"
            )
        if candidates:
            if (other := taken.setdefault(candidates[0], file)) != file:
                raise ValueError(
                    f"{candidates[0]}: the labels name this file twice, as {shorten(other)} and {shorten(file)}"
                )
            found[file] = candidates[0]
    return {file: found[file] for file in files if file in found}


def _of_widerface(file):
    """Whether a file is named like WIDER FACE's, such as `0--Parade/0_Parade_a_1.jpg`."""
    event, _, photo = file.partition("/")
    number, dashes, _ = event.partition("--")
    return bool(dashes) and number.isdecimal() and "/" not in photo


def _photo_sizes(annotations: Annotations, images: Path) -> Mapping[str, tuple[int, int]]:
    """Name -> (width, height) of the photos as stored."""
    from PIL import Image

    sizes = {}
    for name, path in find_photos(images, annotations).items():
        try:
            with Image.open(path) as image:
                sizes[name] = image.size
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise ValueError(f"{path}: not a photo that can be read ({' '.join(str(error).split())[:100]})") from None
    return sizes
