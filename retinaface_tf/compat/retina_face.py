"""The calls and results of serengil's `retina-face` (the package `retinaface`).

    from retinaface_tf.compat import RetinaFace  # in place of: from retinaface import RetinaFace
    faces = RetinaFace.detect_faces("photo.jpg")

Differences: numbers are Python numbers instead of NumPy numbers, so `json.dump` accepts the dictionary; photos are not
downloaded; the network is MobileNet 0.25 instead of ResNet-50, unless `model` is given.
"""

from typing import Any

import numpy as np
from PIL import Image

from retinaface_tf import Detections
from retinaface_tf.compat.pictures import Detector, default_detector, rgb
from retinaface_tf.image.align import crop_box, crop_level
from retinaface_tf.integrations.interop import PERSONS_SIDES

SHORT_SIDE, LONG_SIDE = 1024, 1980  # retina-face resizes photos to this size


class RetinaFace:
    """A namespace with the functions of the module `retinaface.RetinaFace`."""

    @staticmethod
    def build_model() -> Any:
        """The default detector, built once."""
        return default_detector()

    @staticmethod
    def detect_faces(
        img_path: Any, threshold: float = 0.9, model: Detector | None = None, allow_upscaling: bool = True
    ) -> dict[str, dict[str, Any]]:
        """Find the faces of a photo.

        Args:
            img_path: path, base64 text "data:image/...", or uint8 array `[H, W, 3]`, BGR.
            threshold: float in [0, 1]: lowest score.
            model: anything with the `detect` of `RetinaFace`, such as `retinaface_tf.load(...)`; `None` is the bundled
                model.
            allow_upscaling: bool. Enlarge photos whose short side is below 1024 pixels, as the original does, which
                finds smaller faces and takes longer. `False` only shrinks what is larger.

        Returns:
            dict "face_1", "face_2", ... sorted by score, each a dict "score": float; "facial_area": four ints,
            x1, y1, x2, y2; "landmarks": dict right_eye, left_eye, nose, mouth_right, mouth_left of two floats each,
            left and right as the person has them. Empty without faces.

        Raises:
            ImageError: (a ValueError) for what is no photo.
        """
        return _detect(rgb(img_path), threshold, model, allow_upscaling)

    @staticmethod
    def extract_faces(
        img_path: Any,
        threshold: float = 0.9,
        model: Detector | None = None,
        align: bool = True,
        allow_upscaling: bool = True,
        expand_face_area: int = 0,
        target_size: tuple[int, int] | None = None,
        min_max_norm: bool = True,
    ) -> list[np.ndarray]:
        """Cut out the faces of a photo, highest score first.

        Args:
            img_path, threshold, model, allow_upscaling: as in `detect_faces`.
            align: bool. Rotate each face around its center until its eyes are level. The original rotates the whole
                photo around the center of the photo, which cuts off its corners.
            expand_face_area: int. Enlarge the boxes by this percentage.
            target_size: (height, width) in pixels: resize faces to fit, with a black border. `None` keeps the size.
            min_max_norm: bool. With `target_size`: return float32 pixels in [0, 1] instead of uint8.

        Returns:
            list of arrays `[h, w, 3]`, RGB.
        """
        image = rgb(img_path)
        faces = []
        for face in _detect(image, threshold, model, allow_upscaling).values():
            landmarks = np.array([face["landmarks"][name] for name in PERSONS_SIDES])
            crop = (
                crop_level(image, face["facial_area"], landmarks, expand_face_area)
                if align
                else crop_box(image, face["facial_area"], expand_face_area)
            )
            if target_size is not None:
                crop = _fit(crop, target_size)
                crop = crop.astype(np.float32) / 255 if min_max_norm else crop
            faces.append(crop)
        return faces


def to_retina_face(faces: Detections) -> dict[str, dict[str, Any]]:
    """`Detections` as the dictionary that `RetinaFace.detect_faces` describes; boxes are clipped to the photo."""
    last_pixel = (faces.width - 1, faces.height - 1)
    columns = (faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks.tolist())
    return {
        f"face_{number}": {
            "score": score,
            "facial_area": [min(int(value), last) for value, last in zip(box, (*last_pixel, *last_pixel), strict=True)],
            "landmarks": dict(zip(PERSONS_SIDES, landmarks, strict=True)),
        }
        for number, (box, score, landmarks) in enumerate(zip(*columns, strict=True), start=1)
    }


def from_retina_face(answer: dict[str, dict[str, Any]], width: int, height: int) -> Detections:
    """Convert stored results of `retina-face` to `Detections`, with left and right as seen in the photo.

    Args:
        answer: the dictionary that `detect_faces` returned.
        width, height: int, of the photo in pixels.
    """
    faces = sorted(answer.values(), key=lambda face: -float(face["score"]))
    return Detections(
        boxes=np.array([face["facial_area"] for face in faces], np.float32).reshape(-1, 4),
        scores=np.array([face["score"] for face in faces], np.float32),
        landmarks=np.array([[f["landmarks"][name] for name in PERSONS_SIDES] for f in faces], np.float32).reshape(
            -1, 5, 2
        ),
        width=width,
        height=height,
    )


def _detect(
    image: np.ndarray, threshold: float, model: Detector | None, allow_upscaling: bool
) -> dict[str, dict[str, Any]]:
    detector = default_detector() if model is None else model
    short = min(image.shape[:2])
    resize = (SHORT_SIDE if allow_upscaling else min(short, SHORT_SIDE), LONG_SIDE)
    return to_retina_face(detector.detect(image, score_threshold=threshold, resize=resize))


def _fit(crop: np.ndarray, target_size: tuple[int, int]) -> np.ndarray:
    """A picture at the largest size that fits, centered on black: uint8 `[height, width, 3]`."""
    height, width = target_size
    factor = min(height / crop.shape[0], width / crop.shape[1])
    size = (max(1, int(crop.shape[1] * factor)), max(1, int(crop.shape[0] * factor)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(
        Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR), ((width - size[0]) // 2, (height - size[1]) // 2)
    )
    return np.asarray(canvas)
