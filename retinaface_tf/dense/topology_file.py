"""Wavefront OBJ text, alone or in an archive, to the arrays of a topology."""

import json
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retinaface_tf.common.types import PathLike

ARCHIVES = (".tgz", ".tar.gz", ".zip", ".whl")
LARGEST_FILE = 50_000_000  # bytes; a face has far fewer


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
    if name.endswith(ARCHIVES):
        return parse_obj(_from_archive(path), path)
    if not name.endswith(".obj"):
        raise ValueError(f"{path}: a topology must be an .obj file or an archive with one ({' '.join(ARCHIVES)})")
    parts = parse_obj(path.read_bytes(), path)
    beside = path.with_suffix(".landmarks.json")
    return {**parts, **_landmarks(beside)} if beside.is_file() else parts


def parse_obj(content: bytes, path: PathLike) -> dict[str, Any]:
    """OBJ bytes to arrays as `read_topology` gives them. Polygons are split into triangles about their first corner."""
    vertices, places, triangles, corners = [], [], [], {}
    number = 0
    try:
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):  # noqa: B007
            kind, *words = line.split() or [""]
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


def _landmarks(path):
    try:
        said = json.loads(path.read_text("utf-8"))
        return {key: said[key] for key in ("landmarks", "points_68") if key in said}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'{path}: expected JSON such as {{"landmarks": [[33], [263], [4], [61], [291]]}} ({error})'
        ) from None


def _from_archive(path: Path):
    """The bytes of the one OBJ file in an archive; of several the one that has "face" in its name."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                sizes = {info.filename: info.file_size for info in archive.infolist()}
                name = _choose(sizes, path)
                return archive.read(name)
        with tarfile.open(path) as archive:
            sizes = {entry.name: entry.size for entry in archive.getmembers() if entry.isfile()}
            name = _choose(sizes, path)
            member = archive.extractfile(name)
            assert member is not None  # a file, by `isfile`
            return member.read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
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
