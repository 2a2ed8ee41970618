"""Who knows where a labelled face's vertices are? Its five landmarks, a file of 68 points, or MediaPipe's network.

Each is called with a photo, a dict as `parse_example` gives it in NumPy, and returns a `dense.fit.Fit`, or `None`, for
each of its faces. They can be pickled, for the workers of `label3d`.
"""

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np

from retinaface_tf.annotations.landmark_sets import read_pts_file
from retinaface_tf.common.landmarks import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.dense.fit import FaceFitter

OCCLUDED_WEIGHT = 0.25  # an occluded landmark is a guess: twice the standard deviation
LEAST_OVERLAP = 0.3  # intersection over union of a face's box and the box of its 68 points


class FromLandmarks:
    """The topology fitted to the five landmarks of each face.

    Args:
        topology: `Topology`.
        smooth_modes: int, see `dense.modes.shape_model`.
    """

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
                overlaps = _overlaps(photo["boxes"], np.concatenate([points.min(axis=0), points.max(axis=0)]))
                if overlaps.max() >= LEAST_OVERLAP:
                    found[int(overlaps.argmax())] = points
        faces = zip(photo["landmarks"], photo["visible"], strict=True)
        return [
            self.fitter(found[i]) if i in found else self.fit(points, states)
            for i, (points, states) in enumerate(faces)
        ]


def labelled_distance(vertices, matrix, landmarks, visible):
    """How far vertices' landmarks are from labelled ones, as `Fit.residual`; 0 if none is labelled."""
    known = visible != NOT_LABELED
    if not known.any():
        return 0.0
    distances = np.linalg.norm((matrix @ vertices[:, :2] - landmarks)[known], axis=1)
    return float(np.sqrt((distances**2).mean() / np.prod(np.ptp(vertices[:, :2], axis=0))))


def _overlaps(boxes, box):
    sides = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None)
    shared = sides.prod(axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / np.maximum(areas - shared, 1e-9)
