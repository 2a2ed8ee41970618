"""Topology of a face mesh: its vertices and triangles, mirror partners, landmarks and subsets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.topology_file import MAX_VERTICES, read_topology

LARGEST_COORDINATE = 1e6
ROWS = 256  # of a table of pairs that are compared together
SYMMETRY_TOLERANCE = 1e-3  # of the width: how far a vertex may lie from its partner's mirror image


@dataclass(frozen=True, eq=False)
class Topology:
    """A face mesh whose vertices mean the same in every face.

    Attributes:
        vertices: float32 `[V, 3]`, the mean face looking at the viewer: x to the right of the image, y up, z towards
            the viewer, in any unit.
        triangles: int32 `[F, 3]`, counter-clockwise as seen from outside.
        uv: float32 `[V, 2]` in [0, 1], v upwards, or `None`.
        landmarks: five tuples of vertex indices, in the order of a detection's landmarks, each landmark being the mean
            of its vertices; or `None` if the topology does not say.
        points_68: 68 vertex indices in iBUG's order, or `None`.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray | None = None
    landmarks: tuple[tuple[int, ...], ...] | None = None
    points_68: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices, np.float32)
        triangles = np.asarray(self.triangles, np.int32)
        if vertices.ndim != 2 or vertices.shape[1:] != (3,) or not 3 <= len(vertices) <= MAX_VERTICES:
            raise ValueError(
                f"`vertices` must have shape [V, 3], V from 3 to {MAX_VERTICES}. Received: {vertices.shape}"
            )
        if not (np.abs(vertices) <= LARGEST_COORDINATE).all():  # NaN, too
            raise ValueError(f"`vertices` must be numbers of at most {LARGEST_COORDINATE:g}")
        if not (np.ptp(vertices[:, :2], axis=0) > 0).all():
            raise ValueError("`vertices` must have a width (x) and a height (y)")
        if triangles.ndim != 2 or triangles.shape[1:] != (3,):
            raise ValueError(f"`triangles` must have shape [F, 3]. Received: {triangles.shape}")
        if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
            raise ValueError(
                f"`triangles` must be indices below {len(vertices)}, the vertices. "
                f"Received: {triangles.min()} to {triangles.max()}"
            )
        uv = None if self.uv is None else np.asarray(self.uv, np.float32)
        if uv is not None and uv.shape != (len(vertices), 2):
            raise ValueError(f"`uv` must have shape [{len(vertices)}, 2]. Received: {uv.shape}")
        landmarks = self.landmarks
        if landmarks is not None:
            landmarks = tuple(tuple(int(i) for i in np.atleast_1d(one)) for one in landmarks)
            _check_indices("landmarks", sum(landmarks, ()), len(vertices))
            if len(landmarks) != 5 or not all(landmarks):
                raise ValueError(f"`landmarks` must be five lists of vertices. Received: {len(landmarks)}")
        points = self.points_68
        if points is not None:
            points = tuple(int(i) for i in points)
            _check_indices("points_68", points, len(vertices))
            if len(points) != 68:
                raise ValueError(f"`points_68` must be 68 vertices. Received: {len(points)}")
        for name, value in (("vertices", vertices), ("triangles", triangles), ("uv", uv)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "landmarks", landmarks)
        object.__setattr__(self, "points_68", points)

    @classmethod
    def load(cls, path: PathLike) -> Topology:
        """Read a topology.

        Args:
            path: path of a Wavefront `.obj`, or of an archive (`.tgz`, `.tar.gz`, `.zip`, `.whl`) that holds one, such
                as the npm package `mind-ar` with MediaPipe's canonical face. A file `NAME.landmarks.json` beside
                `NAME.obj` says which vertices are landmarks: {"landmarks": [five lists], "points_68": [68 numbers]},
                counted from 0, either part alone too. For the canonical face that is known.

        Raises:
            ValueError: not such a file, with what was expected.
            OSError: it can't be read.
        """
        parts = read_topology(Path(path))
        try:
            return cls(**parts)
        except ValueError as error:
            raise ValueError(f"{path}: no usable topology: {error}") from None

    def __len__(self) -> int:
        """How many vertices."""
        return len(self.vertices)

    @cached_property
    def edges(self) -> np.ndarray:
        """Pairs of vertices that share a triangle's side: int32 `[E, 2]`, each once, the lower index first, sorted."""
        sides = np.sort(self.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        return np.unique(sides, axis=0).astype(np.int32)

    @cached_property
    def mirror(self) -> np.ndarray:
        """Which vertex is each one's partner on the other side of the face: int32 `[V]`; its own for the middle.

        Raises:
            ValueError: the mesh is not symmetric about x = 0.
        """
        width = np.ptp(self.vertices[:, 0])
        partners, nearest = [], []
        for rows in np.array_split(self.vertices * [-1, 1, 1], -(-len(self) // ROWS)):
            distances = np.linalg.norm(rows[:, None] - self.vertices[None], axis=-1)
            partners.append(distances.argmin(axis=1))
            nearest.append(distances.min(axis=1))
        partner = np.concatenate(partners).astype(np.int32)
        worst = np.concatenate(nearest).max()
        if worst > SYMMETRY_TOLERANCE * width or not np.array_equal(partner[partner], np.arange(len(self))):
            raise ValueError(
                "the topology must be symmetric about x = 0, so that photos can be mirrored: a vertex (x, y, z) needs "
                f"a partner at (-x, y, z). Received: one {worst:.4g} away from it, in a face {width:.4g} wide"
            )
        return partner

    @cached_property
    def sha256(self) -> str:
        """Tells topologies apart: hex digest over the mean face, rounded as `to_dict` does, and the triangles."""
        told = self.to_dict()
        return hashlib.sha256(json.dumps([told["vertices"], told["triangles"]]).encode()).hexdigest()

    @cached_property
    def landmark_matrix(self) -> np.ndarray:
        """What turns vertices into the five landmarks: float32 `[5, V]`, rows that add up to 1.

        Raises:
            ValueError: the topology does not say where its landmarks are.
        """
        if self.landmarks is None:
            raise ValueError(
                "the topology does not say which vertices are its landmarks: write NAME.landmarks.json beside it, "
                'such as {"landmarks": [[33], [263], [4], [61], [291]]}'
            )
        matrix = np.zeros((5, len(self)), np.float32)
        for row, indices in enumerate(self.landmarks):
            matrix[row, list(indices)] = 1 / len(indices)
        return matrix

    def choose_vertices(self, count: int) -> np.ndarray:
        """Vertices of a subset: the landmarks', then always the one furthest from those chosen, and its mirror partner.

        Args:
            count: int, at most all vertices and at least those of the landmarks.

        Returns:
            int64 `[count]`, ascending. The 68 points are among them if there is room.

        Raises:
            ValueError: `count` is out of its range; the mesh is not symmetric.
        """
        wanted = set(sum(self.landmarks or (), ()))
        if not max(4, len(wanted)) <= count <= len(self):
            raise ValueError(
                f"a subset must have from {max(4, len(wanted))} vertices, those of the landmarks, to all {len(self)}. "
                f"Received: {count}"
            )
        if self.points_68 is not None and len(wanted | set(self.points_68)) <= count:
            wanted |= set(self.points_68)
        kept = sorted(wanted) or [int(self.vertices[:, 2].argmax())]
        vertices, mirror = self.vertices.astype(np.float64), self.mirror
        distance = np.min([np.linalg.norm(vertices - vertices[one], axis=1) for one in kept], axis=0)
        middle = mirror == np.arange(len(self))
        while len(kept) < count:
            free = distance.copy()
            free[kept] = -1
            if len(kept) == count - 1:  # room for one: a vertex of the middle, where there is one left
                alone = np.where(middle, free, -1)
                free = alone if alone.max() >= 0 else free
            new = int(free.argmax())
            for one in {new, int(mirror[new])} - set(kept) if len(kept) < count - 1 else {new}:
                kept.append(one)
                distance = np.minimum(distance, np.linalg.norm(vertices - vertices[one], axis=1))
        return np.sort(np.array(kept[:count]))

    def subset(self, count: int) -> Topology:
        """The same face with the vertices of `choose_vertices`: `Topology`."""
        kept = self.choose_vertices(count)
        place = {int(vertex): index for index, vertex in enumerate(kept)}
        points = self.points_68
        return Topology(
            self.vertices[kept],
            self._triangulate(kept),
            uv=None if self.uv is None else self.uv[kept],
            landmarks=self.landmarks and tuple(tuple(place[vertex] for vertex in one) for one in self.landmarks),
            points_68=tuple(place[i] for i in points) if points and set(points) <= set(place) else None,
        )

    def _triangulate(self, kept):
        """Delaunay triangles over some vertices, in the unrolled face, where the face has skin.

        Args:
            kept: int `[K]`.

        Returns:
            int32 `[F, 3]`, indices into `kept`, counter-clockwise from outside.
        """
        with tensorflow_needed("a subset of vertices"):
            from scipy.spatial import Delaunay
        flat = (self.vertices[:, :2] if self.uv is None else self.uv).astype(np.float64)
        if _signed_areas(flat, self.triangles).sum() < 0:
            flat = flat * [-1, 1]
        triangles = Delaunay(flat[kept]).simplices
        clockwise = _signed_areas(flat[kept], triangles) < 0
        triangles[clockwise] = triangles[clockwise][:, ::-1]
        a, b, c = (flat[self.triangles[:, corner]] for corner in range(3))
        skin = []
        for middles in np.array_split(flat[kept][triangles].mean(axis=1), -(-len(triangles) // ROWS)):
            sides = [_cross(middles[:, None] - start, end - start) for start, end in ((a, b), (b, c), (c, a))]
            skin.append((np.max(sides, axis=0) <= 1e-12).any(axis=1))  # to the left of all sides of some triangle
        return triangles[np.concatenate(skin)].astype(np.int32)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, as JSON holds them and `from_dict` takes them; coordinates to a millionth of the width."""
        digits = max(0, 6 - int(np.floor(np.log10(np.ptp(self.vertices[:, 0])))))
        rounded = {"vertices": _plain(self.vertices, digits), "triangles": self.triangles.tolist()}
        if self.uv is not None:
            rounded["uv"] = _plain(self.uv, 6)
        if self.landmarks is not None:
            rounded["landmarks"] = [list(one) for one in self.landmarks]
        if self.points_68 is not None:
            rounded["points_68"] = list(self.points_68)
        return rounded

    @classmethod
    def from_dict(cls, parts: dict[str, Any]) -> Topology:
        """The topology that `to_dict` wrote. Raises ValueError for what is none."""
        try:
            return cls(**parts)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a topology as `Topology.to_dict` writes it ({first_line(error)})") from None


def _plain(array, digits):
    return [[round(value, digits) for value in row] for row in np.asarray(array, np.float64).tolist()]


def _check_indices(name, indices, count):
    if not all(0 <= i < count for i in indices):
        raise ValueError(f"`{name}` must be indices below {count}, the vertices. Received: up to {max(indices)}")


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _signed_areas(points, triangles):
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return _cross(b - a, c - a) / 2
