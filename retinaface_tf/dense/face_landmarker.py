"""MediaPipe's Face Landmarker as a provider of vertices: its 468 points are the canonical face's vertices."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from retinaface_tf.dense.canonical_face import NUM_VERTICES
from retinaface_tf.dense.fit import Fit
from retinaface_tf.dense.subset import choose_vertices
from retinaface_tf.dense.vertex_providers import labelled_distance

MARGIN = 0.5  # of the box's longer side, around the box, is shown to the network: it looks for the face itself


class FromFaceLandmarker:
    """Vertices by MediaPipe's network, one crop for each labelled box.

    The network's file is not part of any package: `face_landmarker.task`, from MediaPipe's site.

    Args:
        topology: `Topology`, the canonical face.
        model: path of that file.
        count: int, so many vertices are kept, see `Topology.subset`; `None` for all.

    Raises:
        ImportError: the package mediapipe is not installed.
        OSError: no such file.
        ValueError: another topology, or a file that MediaPipe does not take.
    """

    def __init__(self, topology, model, count=None):
        if len(topology) != NUM_VERTICES:
            raise ValueError(
                f"MediaPipe's points are the {NUM_VERTICES} vertices of its canonical face. Received: {len(topology)}"
            )
        self.kept = slice(None) if count is None else choose_vertices(topology, count)
        self.topology = topology if count is None else topology.subset(count)
        self.model = str(model)
        self.sha256 = hashlib.sha256(Path(model).read_bytes()).hexdigest()
        self._landmarker = self._open()

    def describe(self):
        return {"kind": "MediaPipe Face Landmarker", "model_sha256": self.sha256}

    def __getstate__(self):
        return {**self.__dict__, "_landmarker": None}  # each worker opens its own

    def _open(self):
        try:
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError:
            raise ImportError("MediaPipe's network needs a package: pip install 'retinaface-tf[mediapipe]'") from None
        options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=self.model), num_faces=1)
        try:
            return vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.model}: MediaPipe can't open it as a Face Landmarker ({reason})") from None

    def __call__(self, photo):
        if self._landmarker is None:
            self._landmarker = self._open()
        # Labels are in pixels as stored: EXIF orientation is not applied.
        image = Image.open(io.BytesIO(photo["encoded"])).convert("RGB")
        faces = zip(photo["boxes"], photo["landmarks"], photo["visible"], strict=True)
        return [self._one(image, box, points, states) for box, points, states in faces]

    def _one(self, image, box, landmarks, visible):
        margin = MARGIN * max(box[2:] - box[:2])
        left, top = (int(value) for value in np.floor(box[:2] - margin))
        right, bottom = (int(value) for value in np.ceil(box[2:] + margin))
        crop = image.crop((left, top, right, bottom))
        result = self._landmarker.detect(_image(crop))
        if not result.face_landmarks:
            return None
        points = np.array([[p.x, p.y, p.z] for p in result.face_landmarks[0][:NUM_VERTICES]])
        # Parts of the crop's width, height and, for the depth, width again.
        vertices = points * [crop.width, crop.height, crop.width] + [left, top, 0]
        vertices = vertices[self.kept]
        vertices[:, 2] -= vertices[:, 2].mean()
        distance = labelled_distance(vertices, self.topology.landmark_matrix, landmarks, visible)
        return Fit(vertices.astype(np.float32), distance, 0.0)


def _image(crop):
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
