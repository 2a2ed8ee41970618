"""What `detect` returns: the faces of one photo as NumPy arrays."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from retinaface_tf.common.types import ImageSource, PathLike

if TYPE_CHECKING:
    from PIL import Image

    from retinaface_tf.dense.topology import Topology

SHOWN_FACES = 3  # in a repr


@dataclass(frozen=True, eq=False)
class Face:
    """One face of `Detections`.

    Attributes:
        box: float32 `[4]`, `xyxy`, pixels of the photo.
        score: float.
        landmarks: float32 `[5, 2]`, x and y in pixels, in the order of `Detections.landmarks`.
        vertices: float32 `[V, 3]` of a model with a dense branch, else `None`.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    vertices: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Face(score={self.score:.3f}, box=[{', '.join(f'{v:.1f}' for v in self.box)}])"


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one photo, sorted by score, highest first.

    `len(faces)` is the number of faces, and `faces[0]` is a `Face`. A slice, an index array or a mask gives
    `Detections`. `for face in faces` iterates over all faces.

    Attributes:
        boxes: float32 `[N, 4]`, `xyxy`, in pixels of the photo after EXIF rotation, clipped to the photo.
        scores: float32 `[N]`, descending.
        landmarks: float32 `[N, 5, 2]`, x and y in pixels: left eye, right eye, nose, left mouth corner, right mouth
            corner. Left and right are as seen in the photo. Landmarks may lie outside the photo.
        width, height: int, of the photo in pixels.
        vertices: float32 `[N, V, 3]`, the vertices of the face mesh if the model has a dense branch, otherwise `None`.
            x and y are in pixels; z is in the same unit, away from the camera, and about 0 in the middle of the face.
        topology: `Topology` of the vertices (triangles, and positions on a mean face), or `None`.
        source: path of the photo if `detect` was given a path, otherwise `None`. Pixels are not stored.
        truncated: bool. The model returned its maximum number of faces; there may be more (`max_detections`).

    Without faces, the arrays have `N` = 0 and the same dtypes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    width: int
    height: int
    vertices: np.ndarray | None = None
    topology: Topology | None = None
    source: str | None = None
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> Face: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Detections: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, numbers.Integral):
            number = range(len(self))[int(index)]  # raises IndexError, which ends a loop
            vertices = None if self.vertices is None else self.vertices[number]
            return Face(self.boxes[number], float(self.scores[number]), self.landmarks[number], vertices)
        chosen = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(chosen, np.ndarray) and chosen.size == 0 and chosen.dtype != bool:
            chosen = chosen.astype(int)  # an empty list has no integers to tell
        vertices = None if self.vertices is None else self.vertices[chosen]
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            landmarks=self.landmarks[chosen],
            vertices=vertices,
        )

    def __iter__(self) -> Iterator[Face]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        faces = "1 face" if len(self) == 1 else f"{len(self)} faces"
        shown = [f"{face.score:.3f} at [{', '.join(f'{v:.0f}' for v in face.box)}]" for face in self[:SHOWN_FACES]]
        more = ["..."] if len(self) > SHOWN_FACES else []
        listed = f": {', '.join(shown + more)}" if shown else ""
        return f"Detections({faces} in {self.width}x{self.height}{listed}{', truncated' if self.truncated else ''})"

    def draw(self, path: PathLike | None = None, *, image: ImageSource | None = None) -> Image.Image:
        """Draw the boxes, scores, landmarks and meshes on the photo.

        Args:
            path: .jpg, .png or .webp file to write; an existing file is replaced, but not the photo. `None`: no file.
            image: the photo, in any form that `detect` takes. If `detect` was given a path, `image` can be omitted: the
                file is read again, because `Detections` do not store pixels.

        Returns:
            PIL image.

        Raises:
            ValueError: if `image` is needed but missing or has another size, or for another suffix.
            OSError: if the file can't be written.
        """
        from retinaface_tf.common.files import resolve
        from retinaface_tf.image.drawing import draw, save_picture
        from retinaface_tf.image.loading import load_image

        originals = [resolve(one) for one in (image, self.source) if isinstance(one, str | os.PathLike)]
        if path is not None and resolve(path) in originals:
            raise ValueError(f"{path}: is the photo itself, and would be replaced. Choose another path")
        if image is None and self.source is None:
            raise ValueError("`image` is needed, because these faces do not come from a file: faces.draw(image=...)")
        pixels = load_image(self.source if image is None else image)  # type: ignore[arg-type]
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"`image` must be the photo of these faces, {self.width}x{self.height} pixels. "
                f"Received: {pixels.shape[1]}x{pixels.shape[0]}"
            )
        picture = draw(pixels, self)
        if path is not None:
            save_picture(picture, path)
        return picture

    def save(self, path: PathLike) -> Path:
        """Write the faces to a file, in the format of `retinaface-tf detect --json` or `--csv`.

        Args:
            path: .json or .csv file to write; an existing file is replaced.

        Raises:
            ValueError: for another suffix.
            OSError: if the file can't be written.
        """
        from retinaface_tf.common.files import atomic_write
        from retinaface_tf.inference import report

        renderers = {".json": report.to_json, ".csv": report.to_csv}
        path = Path(path)
        render = renderers.get(path.suffix.lower())
        if render is None:
            raise ValueError(f"faces are saved as .json or .csv. Received: {path}")
        with atomic_write(path) as file:
            file.write(render([report.entry(self.source or "", self)]))
        return path

    def head_poses(self) -> np.ndarray:
        """Head pose of each face: float32 `[N, 3]`, yaw, pitch and roll in degrees.

        Yaw is positive if the face looks to the right of the image, pitch if it looks up, roll if the head is tilted
        clockwise. The pose is computed from the vertices if there are any, otherwise from the landmarks.

        Raises:
            ImportError: if SciPy is not installed; the message names the extra.
        """
        from retinaface_tf.dense.pose import pose_from_landmarks, pose_from_vertices

        if self.vertices is None or self.topology is None:
            return pose_from_landmarks(self.landmarks)
        return pose_from_vertices(self.vertices, self.topology.vertices)

    def to_dict(self) -> dict[str, Any]:
        """The faces as plain Python numbers for JSON: width, height, and a list of boxes, scores and landmarks.

        Where there may be more faces, the dict has "truncated": True.
        """
        return {
            "width": self.width,
            "height": self.height,
            **({"truncated": True} if self.truncated else {}),
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
