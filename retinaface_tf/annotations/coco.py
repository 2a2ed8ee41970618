"""COCO's JSON for faces, in and out; COCO's own AP is left to the tools that define it.

One category, `face`. Boxes are `[x, y, width, height]`; five landmarks go along as `keypoints`. A face outside the
chosen subset is written as a crowd, which those tools do not count.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.annotations.wider_ground_truth import WiderGroundTruth
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.detection_files import ImageDetections

FACE = 1


def to_coco_ground_truth(
    ground_truth: WiderGroundTruth,
    keep: np.ndarray | None = None,
    *,
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
    suffix: str = ".jpg",
) -> dict[str, Any]:
    """Ground truth as a COCO dictionary.

    Args:
        ground_truth: `WiderGroundTruth`.
        keep: Bool `[F]`: the faces to find; None for all.
        image_sizes: Dict name -> `(height, width)`, or None where nobody needs them.
        suffix: Text appended to the names to make `file_name`.

    Returns:
        Dict `images`, `annotations`, `categories`; images are numbered from 1 in the order of the names.
    """
    keep = np.ones(len(ground_truth.boxes), bool) if keep is None else keep
    images = []
    for number, name in enumerate(ground_truth.names, start=1):
        height, width = (0, 0) if image_sizes is None else image_sizes[name]
        images.append({"id": number, "file_name": name + suffix, "height": height, "width": width})
    annotations = []
    faces = zip(ground_truth.boxes, ground_truth.image, keep, strict=True)
    for number, (box, image, kept) in enumerate(faces, start=1):
        x1, y1, x2, y2 = map(float, box)
        annotations.append(
            {
                "id": number,
                "image_id": int(image) + 1,
                "category_id": FACE,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": max(0.0, x2 - x1) * max(0.0, y2 - y1),
                "iscrowd": int(not kept),
            }
        )
    return {"images": images, "annotations": annotations, "categories": [{"id": FACE, "name": "face"}]}


def from_coco_ground_truth(content: dict[str, Any]) -> WiderGroundTruth:
    """Ground truth from a COCO dictionary.

    Args:
        content: Dict with `images` and `annotations`; all categories are taken for faces.

    Returns:
        `WiderGroundTruth` with the subset `all`; faces with `iscrowd` or `ignore` are outside it.

    Raises:
        ValueError: A field is missing.
    """
    try:
        order = {image["id"]: index for index, image in enumerate(content["images"])}
        names = tuple(str(Path(image["file_name"]).with_suffix("")) for image in content["images"])
        faces = sorted(content["annotations"], key=lambda face: order[face["image_id"]])
        boxes = np.array([face["bbox"] for face in faces], np.float64).reshape(-1, 4)
        image = np.array([order[face["image_id"]] for face in faces], np.int64)
        keep = np.array([not (face.get("iscrowd") or face.get("ignore")) for face in faces], bool)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a COCO ground truth: no {error}") from error
    boxes[:, 2:] += boxes[:, :2]
    return WiderGroundTruth(names, boxes, image, {"all": keep})


def to_coco_detections(ground_truth: WiderGroundTruth, detections: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detections as the list that COCO tools load: dicts `image_id`, `category_id`, `bbox`, `score`, `keypoints`."""
    numbers = {name: number for number, name in enumerate(ground_truth.names, start=1)}
    rows = []
    for name, found in detections.items():
        for index, ((x1, y1, x2, y2), score) in enumerate(zip(found.boxes, found.scores, strict=True)):
            row = {
                "image_id": numbers[name],
                "category_id": FACE,
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "score": float(score),
            }
            if getattr(found, "landmarks", None) is not None:
                row["keypoints"] = [float(v) for x, y in found.landmarks[index] for v in (x, y, 2)]
            rows.append(row)
    return rows


def from_coco_detections(content: list[dict[str, Any]], image_names: Mapping[int, str]) -> dict[str, ImageDetections]:
    """Detections from a COCO result list.

    Args:
        content: List of dicts with `image_id`, `bbox`, `score` and, optionally, five `keypoints`.
        image_names: Dict image id -> name.

    Returns:
        Dict name -> `ImageDetections`; landmarks only where every row of the image has them.

    Raises:
        ValueError: A field is missing, or an image id is unknown.
    """
    grouped = {}
    try:
        for row in content:
            grouped.setdefault(image_names[row["image_id"]], []).append(row)
        return {name: _image_detections(rows) for name, rows in grouped.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a COCO result list for this ground truth: {error}") from error


def read_json(path: PathLike) -> Any:
    """Any JSON file; ValueError with one line if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def coco_ap(ground_truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's numbers from faster-coco-eval, or pycocotools where that is what is installed.

    Args:
        ground_truth: COCO dictionary.
        detections: COCO result list.

    Returns:
        Dict `tool`, `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, and `ar` at 100 detections; None where
        there is no such face.

    Raises:
        ValueError: Neither tool is installed.
    """
    import contextlib
    import io

    name, coco_class, evaluator_class = _coco_tool()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    if not detections:  # the tools refuse an empty list
        return {"tool": name, **dict.fromkeys(names, 0.0), "ar": 0.0}
    # Both tools print as they go, and stdout is for our result. Copies, because both write into what they are given.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = json.loads(json.dumps(ground_truth))
        truth.createIndex()
        evaluator = evaluator_class(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    numbers = [None if value < 0 else float(value) for value in (*evaluator.stats[:6], evaluator.stats[8])]
    return {"tool": name, **dict(zip((*names, "ar"), numbers, strict=True))}


def _coco_tool():
    try:
        from faster_coco_eval import COCO, COCOeval_faster

        return "faster-coco-eval", COCO, COCOeval_faster
    except ImportError:
        pass
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return "pycocotools", COCO, COCOeval
    except ImportError as error:
        raise ValueError("COCO AP needs faster-coco-eval: pip install 'retinaface-tf[coco]'") from error


def _image_detections(rows):
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    points = None
    if all(len(row.get("keypoints") or ()) == 15 for row in rows):
        points = np.array([row["keypoints"] for row in rows], np.float64).reshape(-1, 5, 3)[..., :2]
    return ImageDetections(boxes, np.array([row["score"] for row in rows], np.float64), points)
