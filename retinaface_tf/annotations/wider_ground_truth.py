"""The WIDER FACE validation answers: every box, its flags, and which faces are Easy, Medium and Hard."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.types import PathLike

SUBSETS = ("easy", "medium", "hard")
# Values as in the data set's own readme.
FLAGS = {
    "blur": ("clear", "normal", "heavy"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
    "expression": ("typical", "extreme"),
    "illumination": ("normal", "extreme"),
    "invalid": ("valid", "invalid"),
}
DATA_VARIABLE = "RETINAFACE_TF_DATA"


@dataclass(frozen=True)
class WiderGroundTruth:
    """All labelled faces, flat, image after image.

    Attributes:
        names: Tuple of `event/photo`, without suffix, one an image.
        boxes: Float64 `[F, 4]`, `xyxy` pixels (`x + w`, `y + h` of the annotation, without +1).
        image: Int64 `[F]`, rising: the image that each face is in.
        subsets: Name -> bool `[F]`: the faces that count; all others are ignored, not wrong to find.
        flags: Name -> uint8 `[F]`, with the meanings in `FLAGS`. May be empty.
    """

    names: tuple[str, ...]
    boxes: np.ndarray
    image: np.ndarray
    subsets: dict[str, np.ndarray]
    flags: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def events(self) -> np.ndarray:
        """The event of each image, a string array `[I]`."""
        return np.array([name.split("/")[0] for name in self.names], dtype=object)

    def offsets(self) -> np.ndarray:
        """Int64 `[I + 1]`: the faces of image i are `offsets[i]:offsets[i + 1]`."""
        return np.searchsorted(self.image, np.arange(len(self.names) + 1))

    def boxes_of(self, name: str) -> np.ndarray:
        """Boxes `[G, 4]` of one image."""
        index = self.names.index(name)
        return self.boxes[self.image == index]

    def only(self, names: Iterable[str]) -> WiderGroundTruth:
        """The same answers for fewer images, in the original order; ValueError on a name that is not there."""
        wanted = set(names)
        if unknown := sorted(wanted - set(self.names)):
            raise ValueError(f"the ground truth has no photo {unknown[0]!r} ({len(unknown)} unknown in all)")
        kept = np.array([name in wanted for name in self.names], bool)
        faces = kept[self.image]
        return replace(
            self,
            names=tuple(name for name in self.names if name in wanted),
            boxes=self.boxes[faces],
            image=(np.cumsum(kept) - 1)[self.image[faces]],
            subsets={key: value[faces] for key, value in self.subsets.items()},
            flags={key: value[faces] for key, value in self.flags.items()},
        )


def find_wider_ground_truth(directory: PathLike | None = None) -> Path:
    """The ground-truth folder: the one given, else `$RETINAFACE_TF_DATA/wider_ground_truth`. FileNotFoundError."""
    if directory is None and (data := os.environ.get(DATA_VARIABLE)):
        directory = Path(data) / "wider_ground_truth"
    if directory is None:
        raise FileNotFoundError(f"no WIDER FACE ground truth: give --ground-truth DIR, or set {DATA_VARIABLE}")
    directory = Path(directory)
    if not (directory / "wider_face_val.mat").is_file():
        raise FileNotFoundError(
            f"{directory} has no wider_face_val.mat: expected the folder of the official eval_tools/ground_truth"
        )
    return directory


def read_wider_ground_truth(directory: PathLike | None = None) -> WiderGroundTruth:
    """Read the four official Matlab files of the validation set.

    Args:
        directory: Folder with `wider_face_val.mat` and `wider_{easy,medium,hard}_val.mat`; see
            `find_wider_ground_truth`.

    Returns:
        A `WiderGroundTruth` with the subsets `easy`, `medium` and `hard`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not what it should be.
    """
    directory = find_wider_ground_truth(directory)
    content = _load(directory / "wider_face_val.mat", ["event_list", "file_list", "face_bbx_list"])
    names, boxes = [], []
    flags: dict[str, list[Any]] = {flag: [] for flag in FLAGS if f"{flag}_label_list" in content}
    for index, event in enumerate(content["event_list"][:, 0]):
        photos = content["file_list"][index, 0][:, 0]
        names += [f"{event[0]}/{photo[0]}" for photo in photos]
        boxes += list(content["face_bbx_list"][index, 0][:, 0])
        for flag, values in flags.items():
            values += [labels.ravel() for labels in content[f"{flag}_label_list"][index, 0][:, 0]]
    counts = np.array([len(each) for each in boxes])
    boxes = np.concatenate(boxes).astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return WiderGroundTruth(
        names=tuple(names),
        boxes=boxes,
        image=np.repeat(np.arange(len(names)), counts),
        subsets={name: _kept(directory / f"wider_{name}_val.mat", counts) for name in SUBSETS},
        flags={flag: np.concatenate(values) for flag, values in flags.items()},
    )


def _kept(path, counts):
    """Bool `[F]`: the faces of one subset. The file counts faces from 1, image by image."""
    content = _load(path, ["gt_list"])
    chosen = [indices.ravel() for event in content["gt_list"][:, 0] for indices in event[:, 0]]
    if len(chosen) != len(counts):
        raise ValueError(f"{path} lists {len(chosen)} images; wider_face_val.mat beside it lists {len(counts)}")
    kept = np.zeros(counts.sum(), bool)
    for start, indices in zip(np.cumsum(counts) - counts, chosen, strict=True):
        kept[start + indices.astype(np.int64) - 1] = True
    return kept


def _load(path, fields):
    from scipy.io import loadmat  # slow to import, and only needed here

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected the folder of the official eval_tools/ground_truth")
    try:
        content = loadmat(path)
    except Exception as error:  # SciPy raises nearly anything for a damaged file, and something else in each version
        raise ValueError(f"{path} is not a readable Matlab file: {error}") from error
    if missing := [field for field in fields if field not in content]:
        raise ValueError(f"{path} has no field {missing[0]!r}: expected a WIDER FACE ground-truth file")
    return content
