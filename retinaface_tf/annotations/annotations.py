"""The labeled faces of photos: what every reader returns, and what conversion, evaluation and labeling take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retinaface_tf.annotations.text import LARGEST, is_below, shorten
from retinaface_tf.common.types import NOT_LABELED

UNKNOWN = -1
# WIDER FACE's flags: the meanings of the values 0, 1 and 2.
FLAG_MEANINGS = {
    "blur": ("clear", "normal", "heavy"),
    "expression": ("typical", "extreme"),
    "illumination": ("normal", "extreme"),
    "invalid": ("valid", "invalid"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
}
FLAGS = tuple(FLAG_MEANINGS)
PER_FACE = ("boxes", "landmarks", "visible", "flags", "blur_score", "scores", "classes", "ignore")


@dataclass(frozen=True, eq=False)
class Annotations:
    """The faces of P photos in flat arrays, ordered by photo. Create them with `annotate_photo`, `join` or a reader.

    Coordinates are pixels of the photo as stored: EXIF orientation is not applied.

    Attributes:
        files: Tuple of P paths below the folder of photos, with `/`.
        names: Tuple of P unique names: each file without its suffix, or with it where two photos share the rest.
        image: Int64 `[F]`, rising: the photo of each face.
        boxes: Float64 `[F, 4]`, `xyxy`, as the source says: may reach outside or have no area. NaN where not labeled.
        landmarks: Float64 `[F, 5, 2]`, x and y; 0 where not labeled.
        visible: Int64 `[F, 5]`: NOT_LABELED, OCCLUDED or VISIBLE.
        flags: Int64 `[F, 6]` in the order of `FLAGS`, or UNKNOWN.
        blur_score: Float64 `[F]`, the last number of a line of RetinaFace's label.txt, or UNKNOWN.
        scores: Float64 `[F]`: 1 for labels by people, less for those of a teacher.
        classes: Object array `[F]` of class names, "" where the source has none.
        ignore: Bool `[F]`: regions that are neither a face to find nor background.
        sizes: Int64 `[P, 2]`, width and height that the source claims; 0 where it claims none.
        subsets: Dict name -> bool `[F]`: the faces that count in an evaluation.
        normalized: Whether coordinates are fractions of the width and the height, not pixels (YOLO).
    """

    files: tuple[str, ...]
    names: tuple[str, ...]
    image: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray
    flags: np.ndarray
    blur_score: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    sizes: np.ndarray
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    normalized: bool = False

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.files)

    def __iter__(self) -> Iterator[Annotations]:
        """Each photo as `Annotations` of one."""
        return (self.take([index]) for index in range(len(self)))

    @property
    def num_faces(self) -> int:
        return len(self.boxes)

    @property
    def events(self) -> np.ndarray:
        """The first folder of each photo, which is the event in WIDER FACE: object array `[P]`."""
        return np.array([name.split("/")[0] for name in self.names], dtype=object)

    @property
    def has_boxes(self) -> bool:
        """Whether every face has a box."""
        return not np.isnan(self.boxes).any()

    def offsets(self) -> np.ndarray:
        """Int64 `[P + 1]`: the faces of photo i are `offsets[i]:offsets[i + 1]`."""
        return np.searchsorted(self.image, np.arange(len(self) + 1))

    def subset(self, name: str) -> np.ndarray:
        """Which faces belong to a subset: bool `[F]`. `all` means every face, unless the source defines it.

        Raises:
            ValueError: There is no such subset; lists those there are.
        """
        subsets = {"all": ~self.ignore, **self.subsets}
        if name not in subsets:
            raise ValueError(f"the subset must be one of {list(subsets)} for these annotations. Received: {name!r}")
        return subsets[name]

    def replace(self, **changes: Any) -> Annotations:
        """The same with other fields."""
        return replace(self, **changes)

    def select(self, kept: np.ndarray) -> Annotations:
        """The same photos with the faces that a bool `[F]` selects."""
        return self.replace(
            image=self.image[kept],
            subsets={key: value[kept] for key, value in self.subsets.items()},
            **{key: getattr(self, key)[kept] for key in PER_FACE},
        )

    def take(self, photos: Sequence[int]) -> Annotations:
        """The photos with these indices, in the order given."""
        offsets = self.offsets()
        spans = [np.arange(offsets[photo], offsets[photo + 1]) for photo in photos]
        faces = np.concatenate([np.zeros(0, np.int64), *spans])
        return self.replace(
            files=tuple(self.files[photo] for photo in photos),
            names=tuple(self.names[photo] for photo in photos),
            image=np.repeat(np.arange(len(photos)), [len(span) for span in spans]),
            sizes=self.sizes[np.asarray(photos, np.int64)],
            subsets={key: value[faces] for key, value in self.subsets.items()},
            **{key: getattr(self, key)[faces] for key in PER_FACE},
        )

    def only(self, names: Collection[str]) -> Annotations:
        """The photos with these names, in the order they have here.

        Raises:
            ValueError: A name is not here.
        """
        self.require_names(names)
        wanted = set(names)
        return self.take([index for index, name in enumerate(self.names) if name in wanted])

    def require_names(self, names: Collection[str]) -> None:
        """Raise ValueError, naming the first, if a name is not here."""
        if unknown := sorted(set(names) - set(self.names)):
            raise ValueError(f"the annotations have no photo {unknown[0]!r} ({len(unknown)} unknown in all)")

    def by_name(self) -> Annotations:
        """The same photos, sorted by file."""
        return self.take(sorted(range(len(self)), key=self.files.__getitem__))

    def to_pixels(self, sizes: Mapping[str, tuple[int, int]]) -> Annotations:
        """Normalized coordinates as pixels, by the (width, height) of each photo as stored; others as they are.

        Raises:
            ValueError: A photo has no size.
        """
        if not self.normalized:
            return self
        if missing := [file for file, name in zip(self.files, self.names, strict=True) if name not in sizes]:
            raise ValueError(f"no photo {missing[0]!r}: its labels are fractions of its size ({len(missing)} missing)")
        scale = np.array([sizes[name] for name in self.names], np.float64).reshape(-1, 2)[self.image]
        boxes = self.boxes * np.tile(scale, 2)
        return self.replace(boxes=boxes, landmarks=self.landmarks * scale[:, None], normalized=False)

    def landmarks_or_nan(self) -> np.ndarray:
        """Float64 `[F, 5, 2]`: `landmarks`, NaN where not labeled."""
        return np.where((self.visible == NOT_LABELED)[..., None], np.nan, self.landmarks)


def annotate_photo(
    file: str,
    boxes: ArrayLike = (),
    landmarks: ArrayLike | None = None,
    visible: ArrayLike | None = None,
    flags: ArrayLike | None = None,
    blur_score: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    ignore: ArrayLike | None = None,
    size: tuple[int, int] | None = None,
    normalized: bool = False,
) -> Annotations:
    """`Annotations` of one photo. Fields that are None are filled in as unknown; a score as 1.

    Args:
        file: Path below the folder of photos.
        boxes: `[N, 4]`, `xyxy`.
        landmarks, visible: `[N, 5, 2]` and `[N, 5]`.
        flags, blur_score, scores, classes, ignore: `[N, 6]`, then `[N]` each, as in `Annotations`.
        size: (width, height) that the source claims.
        normalized: Whether coordinates are fractions of the size.

    Raises:
        ValueError: The file is not below a folder: results are written under such names. Or a box is infinite.
    """
    if not is_below(file):
        raise ValueError(f"expected the name of a photo below the images folder. Received: {shorten(file)}")
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    absent = np.isnan(boxes)
    if (absent.any(axis=1) != absent.all(axis=1)).any() or (np.abs(boxes[~absent]) > 4 * LARGEST).any():
        raise ValueError(f"{shorten(file)}: expected boxes of four numbers of at most {4 * LARGEST:g}, or NaN for none")
    count = len(boxes)
    visible = np.full((count, 5), NOT_LABELED) if visible is None else np.asarray(visible).reshape(count, 5)
    landmarks = np.zeros((count, 5, 2)) if landmarks is None else np.asarray(landmarks).reshape(count, 5, 2)
    flags = np.full((count, len(FLAGS)), UNKNOWN) if flags is None else np.asarray(flags).reshape(count, len(FLAGS))
    blur_score = np.full(count, UNKNOWN) if blur_score is None else np.asarray(blur_score).reshape(count)
    named = np.empty(count, object)
    named[:] = [""] * count if classes is None else list(classes)
    return Annotations(
        files=(file,),
        names=unique_names([file]),
        image=np.zeros(count, np.int64),
        boxes=boxes,
        landmarks=np.where((visible == NOT_LABELED)[..., None], 0.0, landmarks).astype(np.float64),
        visible=visible.astype(np.int64),
        flags=flags.astype(np.int64),
        blur_score=blur_score.astype(np.float64),
        scores=np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(count),
        classes=named,
        ignore=np.zeros(count, bool) if ignore is None else np.asarray(ignore, bool).reshape(count),
        sizes=np.array([size or (0, 0)], np.int64),
        normalized=normalized,
    )


def join(parts: Iterable[Annotations]) -> Annotations:
    """Concatenate several sets. Subsets are left out, because they refer to one whole set."""
    parts = [*parts] or [annotate_photo("-").take([])]
    files = tuple(file for part in parts for file in part.files)
    starts = np.cumsum([0, *(len(part) for part in parts)])
    per_face: dict[str, Any] = {key: np.concatenate([getattr(part, key) for part in parts]) for key in PER_FACE}
    return Annotations(
        files=files,
        names=unique_names(files),
        image=np.concatenate([part.image + start for part, start in zip(parts, starts[:-1], strict=True)]),
        sizes=np.concatenate([part.sizes for part in parts]),
        normalized=any(part.normalized for part in parts),
        **per_face,
    )


def unique_names(files: Sequence[str]) -> tuple[str, ...]:
    """Each file name without its suffix, unless the name would then not be unique."""
    stems = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    counts = Counter(stems)
    taken = set(files)
    pairs = zip(files, stems, strict=True)
    return tuple(stem if counts[stem] == 1 and (stem == file or stem not in taken) else file for file, stem in pairs)
