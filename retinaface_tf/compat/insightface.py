"""insightface's `FaceAnalysis` as far as detection goes: boxes, scores, five landmarks; no recognition, no age."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from retinaface_tf import Detections
from retinaface_tf.compat.pictures import default_detector, rgb


class Face(dict[str, Any]):
    """A face whose entries are attributes too; what it has not is `None`, as there."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class FaceAnalysis:
    """Find faces with insightface's calls.

    Args:
        name, root, allowed_modules, providers: taken and not used: there is one model, and it detects.
        model: anything with the `detect` of `RetinaFace`; `None` is the bundled model.
    """

    def __init__(
        self,
        name: Any = None,
        root: Any = None,
        allowed_modules: Any = None,
        *,
        model: Any = None,
        providers: Any = None,
    ) -> None:
        self.det_model = default_detector() if model is None else model
        self.prepare()

    def prepare(self, ctx_id: int = 0, det_thresh: float = 0.5, det_size: tuple[int, int] | None = (640, 640)) -> None:
        """Set what `get` does.

        Args:
            ctx_id: taken and not used: TensorFlow chooses the device.
            det_thresh: float, lowest score.
            det_size: (width, height) in pixels into which each photo is fitted, small ones enlarged, as there; `None`
                looks at photos at their own size, which finds smaller faces in large ones.
        """
        self.det_thresh, self.det_size = det_thresh, det_size

    def get(self, img: Any, max_num: int = 0) -> list[Face]:
        """The faces of a photo.

        Args:
            img: path, or uint8 array `[H, W, 3]`, BGR.
            max_num: int. 0 for all faces, else so many: the largest, with a preference for the middle of the photo.

        Returns:
            list of `Face`, with "bbox" float32 `[4]`, `xyxy`; "kps" float32 `[5, 2]`, in the order of `Detections`;
            "det_score" float. Sorted by falling score; where `max_num` leaves some out, by that preference.
        """
        image = rgb(img)
        height, width = image.shape[:2]
        resize = None
        if self.det_size is not None:
            scale = min(self.det_size[0] / width, self.det_size[1] / height)
            short, long = sorted((max(1, round(width * scale)), max(1, round(height * scale))))
            resize = (short, long)
        found = self.det_model.detect(image, score_threshold=self.det_thresh, resize=resize)
        faces = [
            Face(bbox=box, kps=landmarks, det_score=float(score))
            for box, landmarks, score in zip(found.boxes, found.landmarks, found.scores, strict=True)
        ]
        if not max_num or len(faces) <= max_num:
            return faces
        return sorted(faces, key=lambda face: -_importance(face.bbox, width, height))[:max_num]


def from_insightface(faces: Iterable[Any], width: int, height: int) -> Detections:
    """insightface's faces (or ours from above) as `Detections`, sorted by score.

    Args:
        faces: list of its `Face`, or of dicts with the same entries.
        width, height: int, of the photo in pixels.

    Raises:
        ValueError: for faces without landmarks, as some of its detectors give them.
    """
    faces = sorted(faces, key=lambda face: -float(face["det_score"]))
    if any(face.get("kps") is None for face in faces):
        raise ValueError("`faces` must have landmarks, `kps`: use a detector of insightface that gives them")
    return Detections(
        boxes=np.array([face["bbox"] for face in faces], np.float32).reshape(-1, 4),
        scores=np.array([face["det_score"] for face in faces], np.float32),
        landmarks=np.array([face["kps"] for face in faces], np.float32).reshape(-1, 5, 2),
        width=width,
        height=height,
    )


def _importance(box: np.ndarray, width: int, height: int) -> float:
    """Area less twice the squared distance from the photo's middle: insightface's order of preference."""
    sides, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2 - np.array([width, height]) / 2
    return float(sides.prod() - 2 * (centre**2).sum())
