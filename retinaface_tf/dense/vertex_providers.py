"""Providers of a labeled face's vertices: five landmarks, files of 68 points, or MediaPipe's Face Landmarker.

Each is called with a photo, a dict as `parse_example` gives it in NumPy, and returns a `dense.fit.Fit`, or `None`, for
each of its faces. They can be pickled, for the workers of `label3d`.
"""

import hashlib
import io
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from retinaface_tf.annotations.landmark_sets import read_pts_file
from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.cleaning import DECODABLE
from retinaface_tf.dense.fit import FaceFitter, Fit
from retinaface_tf.dense.topology import NUM_VERTICES
from retinaface_tf.geometry.overlap import pairwise_iou

OCCLUDED_WEIGHT = 0.25  # an occluded landmark is a guess: twice the standard deviation
LEAST_OVERLAP = 0.3  # intersection over union of a face's box and the box of its 68 points


class FromLandmarks:
    """The topology fitted to the five landmarks of each face; `smooth_modes` as in `dense.fit.shape_model`."""

    def __init__(self, topology, smooth_modes=12):
        self.topology = topology
        self.smooth_modes = smooth_modes
        self.fitter = FaceFitter(topology, smooth_modes)
        _ = topology.landmark_matrix  # or the error that says what is missing

    def describe(self):
        return {"kind": "five landmarks", "smooth_modes": self.smooth_modes}

    def __call__(self, photo):
        return [self.fit(points, states) for points, states in zip(photo["landmarks"], photo["visible"], strict=True)]

    def fit(self, landmarks, visible):
        weights = np.select([visible == VISIBLE, visible == OCCLUDED], [1.0, OCCLUDED_WEIGHT], 0.0)
        return self.fitter(landmarks, weights)


class FromPoints(FromLandmarks):
    """The topology fitted to 68 points, where a photo has a file of them for a face; else to its five landmarks.

    The file of `a/b.jpg` is `FOLDER/a/b.pts`, or several `FOLDER/a/b_*.pts`; each goes to the face whose box overlaps
    most with the points' box.
    """

    def __init__(self, topology, folder, smooth_modes=12):
        super().__init__(topology, smooth_modes)
        if topology.points_68 is None:
            raise ValueError("the topology does not say which vertices are the 68 points: `points_68` in its JSON file")
        self.folder = Path(folder)
        files = sorted(self.folder.rglob("*.pts"))
        if not files:
            raise FileNotFoundError(f"{folder}: no .pts file there")
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.relative_to(self.folder).as_posix().encode() + path.read_bytes())
        self.sha256 = digest.hexdigest()

    def describe(self):
        return {**super().describe(), "kind": "68 points", "points_sha256": self.sha256}

    def __call__(self, photo):
        name = PurePosixPath(photo["filename"].decode())
        stem = self.folder / name.with_suffix("")
        found = {}
        for path in [stem.with_name(f"{stem.name}.pts"), *sorted(stem.parent.glob(f"{stem.name}_*.pts"))]:
            if path.is_file() and len(photo["boxes"]):
                points = read_pts_file(path)
                box = np.concatenate([points.min(axis=0), points.max(axis=0)])
                overlaps = pairwise_iou(photo["boxes"], box)[:, 0]
                if overlaps.max() >= LEAST_OVERLAP:
                    found[int(overlaps.argmax())] = points
        faces = zip(photo["landmarks"], photo["visible"], strict=True)
        return [
            self.fitter(found[i]) if i in found else self.fit(points, states)
            for i, (points, states) in enumerate(faces)
        ]


def labeled_distance(vertices, matrix, landmarks, visible):
    """How far vertices' landmarks are from labeled ones, as `Fit.residual`; 0 if none is labeled."""
    known = visible != NOT_LABELED
    if not known.any():
        return 0.0
    distances = np.linalg.norm((matrix @ vertices[:, :2] - landmarks)[known], axis=1)
    return float(np.sqrt((distances**2).mean() / np.prod(np.ptp(vertices[:, :2], axis=0))))


MARGIN = 0.5  # of the box's longer side, around the box, is shown to the network: it looks for the face itself


class FromFaceLandmarker:
    """Vertices by MediaPipe's network, one crop for each labeled box.

    The network's file is not part of any package: `face_landmarker.task`, from MediaPipe's site. `topology` is the
    canonical face; `count` vertices are kept, see `Topology.subset`.

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
        self.kept = slice(None) if count is None else topology.choose_vertices(count)
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
            raise ImportError(f"MediaPipe's network needs a package: {install_hint('mediapipe')}") from None
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
        image = Image.open(io.BytesIO(photo["encoded"]), formats=list(DECODABLE)).convert("RGB")
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
        distance = labeled_distance(vertices, self.topology.landmark_matrix, landmarks, visible)
        return Fit(vertices.astype(np.float32), distance, 0.0)


def _image(crop):
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
