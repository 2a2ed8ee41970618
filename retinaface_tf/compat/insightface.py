"""The detection part of insightface's `FaceAnalysis`: boxes, scores and five landmarks."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from retinaface_tf import Detections
from retinaface_tf.compat.pictures import Detector, default_detector, rgb


class Face(dict[str, Any]):
    """A dict whose entries are also attributes. Missing entries, such as embedding, age and gender, are `None`."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class DetectionModel:
    """Replacement for the detection model of insightface.

    Args:
        detector: anything with the `detect` of `RetinaFace`.

    Attributes:
        det_thresh: float. nms_thresh: float, or `None` for the detector's own. input_size: (width, height) in pixels,
            or `None`. As `prepare` sets them.
    """

    taskname = "detection"

    def __init__(self, detector: Any) -> None:
        self.detector = detector
        self.det_thresh = 0.5
        self.nms_thresh: float | None = None
        self.input_size: tuple[int, int] | None = (640, 640)

    def prepare(self, ctx_id: int = 0, **settings: Any) -> None:
        """Set `det_thresh`, `nms_thresh` and `input_size`; `ctx_id` and other settings are accepted, but not used."""
        for name in ("det_thresh", "nms_thresh", "input_size"):
            if settings.get(name) is not None:
                setattr(self, name, settings[name])

    def detect(
        self, img: Any, input_size: tuple[int, int] | None = None, max_num: int = 0, metric: str = "default"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the faces of a photo, as arrays.

        Args:
            img: path, or uint8 array `[H, W, 3]`, BGR.
            input_size: (width, height) in pixels; `None` means the `input_size` of the model.
            max_num: int. 0 or less: all faces; otherwise the number of faces to return.
            metric: "max" prefers the largest faces; any other value also prefers the middle of the photo.

        Returns:
            float32 arrays `[N, 5]`, box `xyxy` and score, and `[N, 5, 2]`, landmarks in the order of `Detections`.
            Sorted by score, or by `metric` if `max_num` leaves faces out.
        """
        image = rgb(img)
        height, width = image.shape[:2]
        size = self.input_size if input_size is None else input_size
        resize = None
        if size is not None:
            scale = min(size[0] / width, size[1] / height)
            short, long = sorted((max(1, round(width * scale)), max(1, round(height * scale))))
            resize = (short, long)
        nms = {} if self.nms_thresh is None else {"nms_threshold": self.nms_thresh}
        found = self.detector.detect(image, score_threshold=self.det_thresh, resize=resize, **nms)
        rows = np.concatenate([found.boxes, found.scores[:, None]], axis=1)
        landmarks = found.landmarks
        if 0 < max_num < len(rows):
            chosen = np.argsort([-_importance(row[:4], width, height, metric) for row in rows], kind="stable")[:max_num]
            rows, landmarks = rows[chosen], landmarks[chosen]
        return rows, landmarks


class FaceAnalysis:
    """Find faces with insightface's calls.

    Args:
        name, root, allowed_modules, providers, kwargs: accepted, but not used.
        model: anything with the `detect` of `RetinaFace`; `None` is the bundled model.

    Attributes:
        det_model: `DetectionModel`.
        models: dict "detection": `det_model`; there are no others.
    """

    def __init__(
        self,
        name: Any = None,
        root: Any = None,
        allowed_modules: Any = None,
        *,
        model: Detector | None = None,
        providers: Any = None,
        **kwargs: Any,
    ) -> None:
        self.det_model = DetectionModel(default_detector() if model is None else model)
        self.models = {"detection": self.det_model}
        self.prepare()

    def prepare(self, ctx_id: int = 0, det_thresh: float = 0.5, det_size: tuple[int, int] | None = (640, 640)) -> None:
        """Set the options of `get`.

        Args:
            ctx_id: accepted, but not used.
            det_thresh: float, lowest score.
            det_size: (width, height) in pixels. Each photo is resized to fit, also if it is smaller, as in insightface.
                `None` keeps the size of the photo and finds smaller faces in large photos.
        """
        self.det_thresh, self.det_size = det_thresh, det_size
        self.det_model.det_thresh, self.det_model.input_size = det_thresh, det_size

    def get(self, img: Any, max_num: int = 0, det_metric: str = "default", **kwargs: Any) -> list[Face]:
        """The faces of a photo.

        Args:
            img, max_num: as in `DetectionModel.detect`.
            det_metric: as `metric`, which is also accepted.

        Returns:
            list of `Face`, with "bbox" float32 `[4]`, `xyxy`; "kps" float32 `[5, 2]`, in the order of `Detections`;
            "det_score" float.
        """
        metric = kwargs.pop("metric", det_metric)
        if kwargs:
            raise TypeError(f"`get` has no argument {next(iter(kwargs))!r}")
        rows, landmarks = self.det_model.detect(img, max_num=max_num, metric=metric)
        return [
            Face(bbox=row[:4], kps=points, det_score=float(row[4])) for row, points in zip(rows, landmarks, strict=True)
        ]

    def draw_on(self, img: Any, faces: Iterable[Any]) -> np.ndarray:
        """The photo with its faces drawn on it: uint8 array `[H, W, 3]`, BGR.

        Args:
            img: as in `get`.
            faces: what `get` returned for it.
        """
        image = rgb(img)
        found = from_insightface(faces, image.shape[1], image.shape[0])
        return np.ascontiguousarray(np.asarray(found.draw(image=image))[..., ::-1])


def from_insightface(faces: Iterable[Any], width: int, height: int) -> Detections:
    """Convert faces of insightface to `Detections`, sorted by score.

    Args:
        faces: list of `Face` objects of insightface, or of dicts with the same entries.
        width, height: int, of the photo in pixels.

    Raises:
        ValueError: if a face has no landmarks, as with some detectors of insightface.
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


def _importance(box: np.ndarray, width: int, height: int, metric: str) -> float:
    """insightface's order of preference: the area, less twice the squared distance from the photo's middle."""
    sides, center = box[2:] - box[:2], (box[:2] + box[2:]) / 2 - np.array([width, height]) / 2
    return float(sides.prod() - (0 if metric == "max" else 2 * (center**2).sum()))
