"""Detections as COCO's result list, and COCO's AP by the tools that define it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from retinaface_tf.annotations.annotations import Annotations
from retinaface_tf.annotations.coco import FACE
from retinaface_tf.annotations.text import parse_numbers
from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.json_files import TYPES
from retinaface_tf.evaluation.detection_files import ImageDetections


def to_coco_detections(annotations: Annotations, detections: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detections as the list that COCO tools load: dicts `image_id`, `category_id`, `bbox`, `score`, `keypoints`."""
    numbers = {name: number for number, name in enumerate(annotations.names, start=1)}
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


def from_coco_detections(content: Any, image_names: Mapping[Any, str]) -> dict[str, ImageDetections]:
    """Detections from a COCO result list: dicts with `image_id`, `bbox`, `score` and, optionally, five `keypoints`.

    Returns:
        Dict name -> `ImageDetections`; landmarks only where every row of the image has them.

    Raises:
        ValueError: A field is missing, an image id is unknown, or a number is not finite.
    """
    grouped: dict[str, list] = {}
    if not isinstance(content, list):
        raise ValueError(f"not a COCO result list, but {TYPES.get(type(content), 'a single value')}")
    try:
        for number, row in enumerate(content):
            where = f"COCO result {number}"
            box = parse_numbers(row["bbox"], 4, f"{where}: bbox of x y w h")
            score = parse_numbers([row["score"]], 1, f"{where}: score")[0]
            keypoints = row.get("keypoints") or ()
            points = parse_numbers(keypoints, 15, f"{where}: keypoints") if len(keypoints) == 15 else None
            grouped.setdefault(image_names[row["image_id"]], []).append((box, score, points))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a COCO result list for these annotations: {error}") from error
    return {name: _image_detections(rows) for name, rows in grouped.items()}


def coco_ap(ground_truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's numbers by faster-coco-eval, or by pycocotools if only that is installed.

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
        raise ValueError(f"COCO AP needs faster-coco-eval: {install_hint('coco')}") from error


def _image_detections(rows):
    boxes, scores, points = zip(*rows, strict=True)
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    landmarks = None if None in points else np.array(points, np.float64).reshape(-1, 5, 3)[..., :2]
    return ImageDetections(boxes, np.array(scores, np.float64), landmarks)
