"""Which face of this frame is which of the last? SORT from the library `trackers`: a Kalman filter and IoU."""

import numpy as np

from retinaface_tf.common.imports import require
from retinaface_tf.inference.detections import Detections

MEMORY = 1.0  # seconds for which a face that is lost may come back as the same


class FaceTracker:
    """Gives the faces of frame after frame their identities.

    A face gets its number when it is seen in a second frame, so that a false alarm of one frame gets none.

    Args:
        rate: frames a second.
        iou: float. Lowest overlap of a face with where it was expected to be.

    Raises:
        ImportError: without `trackers`, naming the extra.
    """

    def __init__(self, rate: float, iou: float = 0.3) -> None:
        trackers = require("trackers", "video", "tracking faces")
        self._supervision = require("supervision", "video", "tracking faces")
        self.rate, self.iou = rate, iou
        self._tracker = trackers.SORTTracker(
            # The library counts its buffer in frames of a clip of 30 a second.
            lost_track_buffer=max(1, round(MEMORY * 30)),
            frame_rate=float(rate),
            track_activation_threshold=0.0,  # `score_threshold` of the detector has chosen already
            minimum_consecutive_frames=1,
            minimum_iou_threshold=iou,
        )

    def update(self, faces: Detections, seconds: float | None = None) -> list[int | None]:
        """The identity of each face of the next frame, in the order of `faces`; `None` where it is new.

        Args:
            faces: `Detections` of the frame.
            seconds: the frame's time, later than the last one's; `None` for even steps of `rate`.
        """
        found = self._supervision.Detections(
            xyxy=faces.boxes.reshape(-1, 4),
            confidence=faces.scores,
            class_id=np.zeros(len(faces), int),
            data={"index": np.arange(len(faces))},
        )
        tracked = self._tracker.update(found, timestamp=seconds)
        result: list[int | None] = [None] * len(faces)
        for index, number in zip(tracked.data.get("index", ()), tracked.tracker_id, strict=False):
            result[int(index)] = int(number) if number >= 0 else None
        return result
