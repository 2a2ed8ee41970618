"""What `detect` returns: faces as NumPy arrays."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology


@dataclass(frozen=True)
class Detections:
    """The faces of one photo, the surest first.

    Attributes:
        boxes: float32 `[N, 4]`, `xyxy`, pixels of the photo as a person sees it (EXIF orientation applied), inside it.
        scores: float32 `[N]`, descending.
        landmarks: float32 `[N, 5, 2]`, x and y in pixels: left eye, right eye, nose, left mouth corner, right mouth
            corner, left and right as seen in the photo. They may lie outside it.
        width, height: int, of the photo in pixels.
        vertices: float32 `[N, V, 3]` where the model has a dense branch, else `None`: the vertices of its mesh, x and y
            in pixels, z in the same unit, away from the camera, about 0 at the face's middle.
        topology: `Topology` of those vertices, or `None`: their triangles and what they look like on a mean face.

    Without faces the arrays have `N` = 0 and the same dtypes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    width: int
    height: int
    vertices: np.ndarray | None = None
    topology: "Topology | None" = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        best = f", best score {self.scores[0]:.3f}" if len(self) else ""
        faces = "face" if len(self) == 1 else "faces"
        return f"Detections({len(self)} {faces} in {self.width}x{self.height}{best})"

    def head_poses(self) -> np.ndarray:
        """Where the faces look: float32 `[N, 3]`, yaw, pitch and roll in degrees; see `dense.pose` for their signs.

        From the vertices, where there are any, else from the landmarks.

        Raises:
            ImportError: without SciPy, naming the extra.
        """
        from retinaface_tf.dense.pose import pose_from_landmarks, pose_from_vertices

        if self.vertices is None or self.topology is None:
            return pose_from_landmarks(self.landmarks)
        return pose_from_vertices(self.vertices, self.topology.vertices)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python numbers, ready for JSON: width, height and a list of faces, each box, score and landmarks."""
        return {
            "width": self.width,
            "height": self.height,
            "faces": [
                {
                    "box": [round(v, 3) for v in box],
                    "score": round(score, 6),
                    "landmarks": [[round(x, 3), round(y, 3)] for x, y in landmarks],
                }
                for box, score, landmarks in zip(
                    self.boxes.tolist(), self.scores.tolist(), self.landmarks.tolist(), strict=True
                )
            ],
        }
