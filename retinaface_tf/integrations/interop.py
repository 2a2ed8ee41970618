"""Convert detections for other libraries, with one function each.

NumPy rows and the dictionaries for COCO, FiftyOne and deepface need no package. `supervision` needs the extra
`interop`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retinaface_tf import Detections
from retinaface_tf.common.imports import require
from retinaface_tf.common.types import LANDMARK_NAMES
from retinaface_tf.image import load_image
from retinaface_tf.image.align import BORDER, crop_box, crop_level, whole_pixels

if TYPE_CHECKING:
    import supervision as sv

COLUMNS = 15  # of a row: box, score, five landmarks
# The landmarks by the names of deepface and retina-face, whose left and right are the person's own.
PERSONS_SIDES = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
VISIBLE = 2  # COCO's word for a keypoint that is labeled and seen


def to_numpy(faces: Detections) -> np.ndarray:
    """One row per face: x1, y1, x2, y2, score, then x and y of the five landmarks.

    These are also the rows that biubug6/Pytorch_Retinaface's scripts have in `dets`.

    Returns:
        float32 array `[N, 15]`.
    """
    return np.concatenate([faces.boxes, faces.scores[:, None], faces.landmarks.reshape(-1, 10)], axis=1)


def from_numpy(rows: np.ndarray, width: int, height: int) -> Detections:
    """Convert rows of `to_numpy` to `Detections`.

    Args:
        rows: float array `[N, 15]`; they are sorted by descending score.
        width, height: int, of the photo in pixels.

    Raises:
        ValueError: for another shape.
    """
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or rows.shape[1] != COLUMNS:
        raise ValueError(f"`rows` must be [N, 15]: box, score, five landmarks. Received: shape {list(rows.shape)}")
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2), width, height)


def to_supervision(faces: Detections) -> "sv.Detections":
    """Roboflow's `supervision.Detections`, for its annotators, trackers, zones and sinks.

    `data["landmarks"]` `[N, 5, 2]` holds the landmarks. If the model predicts a mesh, `data["vertices"]` `[N, V, 3]`
    holds its vertices. Tools that move boxes, such as `InferenceSlicer`, do not move these arrays; they do move the
    result of `to_supervision_keypoints`.

    Raises:
        ImportError: without the extra `interop`; the message says what to install.
    """
    supervision = require("supervision", "interop", "to_supervision")
    found: sv.Detections = supervision.Detections(
        xyxy=faces.boxes.copy(),
        confidence=faces.scores.copy(),
        class_id=np.zeros(len(faces), int),
        data={"class_name": np.full(len(faces), "face"), "landmarks": faces.landmarks.copy()},
    )
    if faces.vertices is not None:
        found.data["vertices"] = faces.vertices.copy()
    return found


def to_supervision_keypoints(faces: Detections) -> "sv.KeyPoints":
    """Roboflow's `supervision.KeyPoints`: five points per face, in the order of `Detections`.

    Raises:
        ImportError: as `to_supervision`.
    """
    supervision = require("supervision", "interop", "to_supervision_keypoints")
    points: sv.KeyPoints = supervision.KeyPoints(
        xy=faces.landmarks.copy(),
        class_id=np.zeros(len(faces), int),
        detection_confidence=faces.scores.copy(),
        data={"class_name": np.full(len(faces), "face")},
    )
    return points


def to_coco(photos: Mapping[str, Detections]) -> dict[str, list[dict[str, Any]]]:
    """Convert detections to a COCO data set with keypoints, ready for `json.dump`.

    COCO's tools, CVAT, Label Studio and `retinaface-tf convert custom` read the whole dict as a data set.
    `COCO.loadRes` and `retinaface-tf evaluate coco` read `["annotations"]` alone as a list of results.

    Args:
        photos: file name -> its `Detections`.

    Returns:
        dict "images", "annotations", "categories". Photos and annotations are numbered from 1. Boxes are
        `[x, y, width, height]` pixels, "keypoints" is x, y, 2 for each landmark, and "score" is that of the detection.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, faces) in enumerate(photos.items(), start=1):
        images.append({"id": image_id, "file_name": name, "width": faces.width, "height": faces.height})
        columns = (faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks.tolist())
        for (x1, y1, x2, y2), score, landmarks in zip(*columns, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "score": score,
                    "keypoints": [value for x, y in landmarks for value in (x, y, VISIBLE)],
                    "num_keypoints": len(landmarks),
                }
            )
    category = {"id": 1, "name": "face", "keypoints": list(LANDMARK_NAMES), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def to_fiftyone(faces: Detections) -> dict[str, dict[str, Any]]:
    """Convert detections to the dictionaries of two FiftyOne labels. FiftyOne need not be installed.

    `sample["faces"] = fiftyone.Detections.from_dict(d["faces"])` and
    `sample["landmarks"] = fiftyone.Keypoints.from_dict(d["landmarks"])` make labels of them.

    Returns:
        dict "faces": `Detections`; "landmarks": `Keypoints`; and "vertices": `Keypoints` if the model predicts a mesh.
        Coordinates are fractions of the photo's width and height. Boxes are left, top, width, height.
    """
    size = np.array([faces.width, faces.height], np.float64)
    low, high = faces.boxes[:, :2] / size, faces.boxes[:, 2:] / size
    boxes, scores = np.concatenate([low, high - low], axis=1).tolist(), faces.scores.tolist()
    fields: dict[str, dict[str, Any]] = {
        "faces": {
            "_cls": "Detections",
            "detections": [
                {"_cls": "Detection", "label": "face", "bounding_box": box, "confidence": score}
                for box, score in zip(boxes, scores, strict=True)
            ],
        },
        "landmarks": _keypoints(faces.landmarks / size, scores),
    }
    if faces.vertices is not None:
        fields["vertices"] = _keypoints(faces.vertices[..., :2] / size, scores)
    return fields


def _keypoints(points: np.ndarray, scores: list[float]) -> dict[str, Any]:
    return {
        "_cls": "Keypoints",
        "keypoints": [
            {"_cls": "Keypoint", "label": "face", "points": face, "confidence": [score] * len(face)}
            for face, score in zip(points.tolist(), scores, strict=True)
        ],
    }


def to_deepface(
    image: Any,
    faces: Detections,
    *,
    align: bool = True,
    expand_percentage: int = 0,
    normalize_face: bool = True,
    color_face: Literal["rgb", "bgr", "gray"] = "rgb",
) -> list[dict[str, Any]]:
    """The result of `DeepFace.extract_faces`, as input for its networks.

    Its networks take crops with `detector_backend="skip"`. They expect BGR arrays: use `color_face="bgr"`.

    Args:
        image: what `load_image` takes: the photo in which the faces were found.
        faces: `Detections` of it.
        align: bool. Rotate each face until its eyes are level.
        expand_percentage: int, at least 0. Enlarge the boxes by this percentage, as deepface does.
        normalize_face: bool. Float pixels in [0, 1] in place of uint8.
        color_face: "rgb", "bgr" or "gray".

    Returns:
        list of dicts "face": float64 `[h, w, 3]` (`[h, w]` gray); "facial_area": x, y, w, h and, as pairs of ints or
        `None` outside the photo, left_eye, right_eye, nose, mouth_left, mouth_right, **left and right as the person
        has them**, which is deepface's way and the reverse of ours; "confidence": float, two digits.

    Raises:
        ValueError: for another `color_face`, or a negative `expand_percentage`.
    """
    if color_face not in ("rgb", "bgr", "gray"):
        raise ValueError(f'`color_face` must be "rgb", "bgr" or "gray". Received: color_face={color_face!r}')
    if expand_percentage < 0:
        raise ValueError(f"`expand_percentage` must be at least 0. Received: expand_percentage={expand_percentage}")
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    border = BORDER if align else 0.0
    results = []
    for box, score, landmarks in zip(faces.boxes, faces.scores, faces.landmarks, strict=True):
        # It has whole pixels before it turns the face: an eye's rounding is in the angle.
        points = np.trunc(landmarks)
        if align:
            face = crop_level(pixels, box, points, expand_percentage, border)
        else:
            face = crop_box(pixels, box, expand_percentage)
        if color_face == "bgr":
            face = face[..., ::-1]
        elif color_face == "gray":
            face = np.round(face @ [0.299, 0.587, 0.114]).astype(np.uint8)  # BT.601, as OpenCV has it
        x1, y1, x2, y2 = whole_pixels(box, pixels.shape, expand_percentage, border)
        left, top = max(0, x1), max(0, y1)
        size = {"w": min(width - left - 1, x2 - x1), "h": min(height - top - 1, y2 - y1)}  # one less at the far edges
        area: dict[str, Any] = {"x": left, "y": top, **size}
        named = dict(zip(PERSONS_SIDES, points.astype(int).tolist(), strict=True))
        for name in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"):
            x, y = named[name]
            area[name] = (x, y) if 0 <= x < width and 0 <= y < height else None
        results.append(
            {
                "face": face / 255 if normalize_face else face,
                "facial_area": area,
                "confidence": round(float(score), 2),
            }
        )
    return results
