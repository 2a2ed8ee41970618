"""Read and write COCO JSON.

Boxes are `[x, y, width, height]`; `keypoints`, where there are five, are the landmarks as x y v. Crowds and faces with
`ignore` become ignore regions, and ignore regions are written as crowds, which COCO's tools do not count.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.text import parse_file, parse_flag, parse_numbers, parse_size
from retinaface_tf.common.json_files import read_json
from retinaface_tf.common.types import LANDMARK_NAMES, NOT_LABELED, OCCLUDED, VISIBLE, PathLike

FACE = 1  # the category that we write
STATES = np.array([NOT_LABELED, OCCLUDED, VISIBLE])  # of keypoint flags 0, 1, 2


def read_coco(path: Path, images: Path | None, classes: Container[str]) -> Annotations:
    """Read a COCO ground truth. `images` is not needed."""
    content = read_json(path)
    try:
        names = {one["id"]: one["name"] for one in content.get("categories", [])}
        photos: dict[Any, tuple] = {one["id"]: (one, []) for one in content["images"]}
        faces = content["annotations"]
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: expected COCO JSON with images and annotations ({reason})") from None
    if len(photos) < len(content["images"]):
        raise ValueError(f"{path}: two images have the same id")
    for number, one in enumerate(faces):
        where = f"{path}: annotation {one.get('id', number)}"
        if one.get("image_id") not in photos:
            raise ValueError(f"{where}: its image_id {one.get('image_id')!r} is not among the images")
        label = str(names.get(one.get("category_id"), one.get("category_id")))
        if label in classes:
            photos[one["image_id"]][1].append((*_parse_face(one, where), label))
    parts = []
    for photo, faces in photos.values():
        where = f"{path}: image {photo.get('id')}"
        boxes, points, ignore, labels = zip(*faces, strict=True) if faces else ((), (), (), ())
        points = np.array(points, np.float64).reshape(-1, 5, 3)
        parts.append(
            annotate_photo(
                parse_file(photo.get("file_name"), where),
                boxes,
                points[..., :2],
                STATES[np.clip(points[..., 2], 0, 2).astype(int)],
                classes=labels,
                ignore=ignore,
                size=parse_size([photo.get("width"), photo.get("height")], f"{where}: width, height"),
            )
        )
    return join(parts)


def _parse_face(one, where):
    """(box, `[5, 3]` x y v, ignore)."""
    x, y, w, h = parse_numbers(one.get("bbox") or (), 4, f"{where}: bbox of x y w h")
    points, keypoints = np.zeros((5, 3)), one.get("keypoints") or []
    if len(keypoints) == 15:
        points = np.reshape(parse_numbers(keypoints, 15, f"{where}: five keypoints of x y v"), (5, 3))
    elif keypoints:
        names = ", ".join(LANDMARK_NAMES)
        raise ValueError(f"{where}: expected five keypoints ({names}), it has {len(keypoints)}/3")
    ignore = [parse_flag(one.get(name), f"{where}: {name}") for name in ("iscrowd", "ignore")]
    return (x, y, x + w, y + h), points, any(ignore)


def to_coco(annotations: Annotations, keep: np.ndarray | None = None) -> dict[str, Any]:
    """Annotations in pixels as a COCO dictionary; images are numbered from 1 in their order.

    `keep` `[F]` are the faces to find; the others are written as crowds. None keeps all but ignore regions.
    """
    keep = ~annotations.ignore if keep is None else keep
    images = [
        {"id": number, "file_name": file, "height": int(height), "width": int(width)}
        for number, (file, (width, height)) in enumerate(zip(annotations.files, annotations.sizes, strict=True), 1)
    ]
    faces = []
    for index, (box, photo, kept) in enumerate(zip(annotations.boxes, annotations.image, keep, strict=True)):
        x1, y1, x2, y2 = map(float, box)
        face = {
            "id": index + 1,
            "image_id": int(photo) + 1,
            "category_id": FACE,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": max(0.0, x2 - x1) * max(0.0, y2 - y1),
            "iscrowd": int(not kept),
        }
        states = annotations.visible[index]
        if (states != NOT_LABELED).any():
            points = zip(annotations.landmarks[index], states, strict=True)
            face["keypoints"] = [value for (x, y), state in points for value in (float(x), float(y), int(state) + 1)]
            face["num_keypoints"] = int((states != NOT_LABELED).sum())
        faces.append(face)
    category = {"id": FACE, "name": "face", "keypoints": list(LANDMARK_NAMES)}
    return {"images": images, "annotations": faces, "categories": [category]}


def image_numbers(path: PathLike | None, annotations: Annotations) -> dict[Any, str]:
    """Dict image id -> name, for results about these annotations: a COCO file's own ids, else counted from 1."""
    if path is None or Path(path).suffix.lower() != ".json":
        return dict(enumerate(annotations.names, start=1))
    images = read_json(path)["images"]
    return {image["id"]: name for image, name in zip(images, annotations.names, strict=True)}
