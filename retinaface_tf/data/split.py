"""Split annotated photos into training and validation parts that share no person or event."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import PurePosixPath

from retinaface_tf.annotations.annotations import Annotations

LEAST_GROUPS = 5  # names that tell fewer apart say nothing
LARGEST_GROUP = 0.5  # of all photos
# What a series of photos differs in: frame and copy numbers at the end of the name.
NUMBER = re.compile(r"([ _.-]?(\(\d+\)|\d+))+$")


def split_annotations(annotations: Annotations, part: float, *, seed: int = 0) -> tuple[Annotations, Annotations, str]:
    """Split photos in two; photos that belong together stay together.

    The rule: photos of one folder belong together (WIDER FACE's events), else photos whose names differ in the number
    at the end alone (`Ann_Lee_1.jpg`, `Ann_Lee_23.jpg`: one person, or frames of one clip). A rule is used where it
    makes at least 5 groups and none of them holds more than half of the photos; where neither does, each photo stands
    alone. The groups are taken by a hash of seed and name: the same photos always come to the same side.

    Returns:
        (training part, validation part, the rule: "folder", "name" or "photo").

    Raises:
        ValueError: `part` is out of its range, or there are too few photos.
    """
    if not 0 < part < 1:
        raise ValueError(f"`part` must be in (0, 1). Received: part={part}")
    if len(annotations) < 2:
        raise ValueError(f"expected at least 2 photos to split. Received: {len(annotations)}")
    rule, groups = group_photos(annotations.files)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    wanted = max(1, round((1 - part) * len(annotations)))
    chosen: list[int] = []
    for group in order:
        photos = groups[group]
        nearer = abs(len(chosen) + len(photos) - wanted) < abs(len(chosen) - wanted)
        if nearer and len(chosen) + len(photos) < len(annotations):
            chosen += photos
    if not chosen:
        chosen = min((groups[group] for group in order), key=len)
    held = set(chosen)
    training = annotations.take([photo for photo in range(len(annotations)) if photo not in held])
    return training, annotations.take(sorted(held)), rule


def group_photos(files: tuple[str, ...]) -> tuple[str, dict[str, list[int]]]:
    """(rule, dict group -> indices of its photos); see `split_annotations`."""
    rules = {
        "folder": lambda path: path.parent.as_posix(),
        "name": lambda path: (path.parent / (NUMBER.sub("", path.stem) or path.stem)).as_posix(),
        "photo": lambda path: path.as_posix(),
    }
    groups: dict[str, list[int]] = {}
    for rule, key in rules.items():
        groups = defaultdict(list)
        for index, file in enumerate(files):
            groups[key(PurePosixPath(file))].append(index)
        together = len(groups) < len(files)
        if together and len(groups) >= LEAST_GROUPS and max(map(len, groups.values())) <= LARGEST_GROUP * len(files):
            return rule, dict(groups)
    return "photo", dict(groups)
