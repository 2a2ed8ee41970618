"""The rows of biubug6/Pytorch_Retinaface's scripts: `dets`, `[N, 15]`, box, score and five landmarks per face."""

from typing import Any

import numpy as np

from retinaface_tf.compat.pictures import Detector, default_detector, rgb
from retinaface_tf.integrations.interop import from_numpy, to_numpy

to_rows = to_numpy
from_rows = from_numpy


def detect(
    img_raw: Any,
    model: Detector | None = None,
    confidence_threshold: float = 0.02,
    nms_threshold: float = 0.4,
    keep_top_k: int = 750,
) -> np.ndarray:
    """Detections as `test_widerface.py` of bb6 computes them from a photo at its own size.

    Args:
        img_raw: path, or uint8 array `[H, W, 3]`, BGR.
        model: anything with the `detect` of `RetinaFace`, such as a converted checkpoint; `None` is the bundled model.
        confidence_threshold, nms_threshold, keep_top_k: the options and defaults of bb6. All candidates above the
            threshold enter NMS; bb6 takes only the best 5,000.

    Returns:
        float32 array `[N, 15]`: x1, y1, x2, y2, score, then x and y of the left eye, right eye, nose, left and right
        mouth corner, as seen. Sorted by score, highest first. Boxes are clipped to the photo, unlike in bb6.
    """
    detector = default_detector() if model is None else model
    faces = detector.detect(
        rgb(img_raw),
        score_threshold=confidence_threshold,
        nms_threshold=nms_threshold,
        max_detections=keep_top_k,
        resize=None,
        close_ups=False,
    )
    return to_numpy(faces)
