"""What a user says of the mesh branch, made complete: a topology becomes a mesh at several resolutions."""

from typing import Any

import numpy as np

from retinaface_tf.dense.mesh_hierarchy import build_hierarchy
from retinaface_tf.dense.topology import Topology

DEFAULTS = {"filters": 16, "order": 3, "codes": 128}
SIMPLIFICATION = {"levels": 4, "factor": 4}


def complete_mesh(mesh: Any) -> dict[str, Any]:
    """All arguments of a `MeshBranch` but one.

    Args:
        mesh: path of a topology (see `Topology.load`); or dict with "topology", the path, and any of "filters", "order"
            and "codes" (see `MeshDecoder`), "levels" and "factor" (see `build_hierarchy`); or dict that this function
            returned.

    Returns:
        dict "hierarchy", "landmarks", "filters", "order", "codes", JSON-ready: what it was made from, file and
        libraries, is not needed again.

    Raises:
        ValueError: for a name or value that can't be used.
        OSError: if the file can't be read.
        ImportError: naming the extra, without the library that simplifies meshes.
    """
    if not isinstance(mesh, dict):
        mesh = {"topology": mesh}
    source = "hierarchy" if "hierarchy" in mesh else "topology"
    known = ["hierarchy", "landmarks"] if source == "hierarchy" else ["topology", *SIMPLIFICATION]
    known += DEFAULTS
    if unknown := [name for name in mesh if name not in known]:
        raise ValueError(f"`mesh` has no field {unknown[0]!r}. Expected some of {known}")
    if source not in mesh:
        raise ValueError("`mesh` needs a `topology`: path of an .obj, or of an archive with one")
    for name in (*DEFAULTS, *SIMPLIFICATION):
        least, kinds = (1.5, (int, float)) if name == "factor" else (1, int)
        value = mesh.get(name, 2)
        if not isinstance(value, kinds) or isinstance(value, bool) or value < least:
            raise ValueError(f"`mesh.{name}` must be a number of at least {least}. Received: {value!r}")
    sizes = {name: mesh.get(name, value) for name, value in DEFAULTS.items()}
    if source == "hierarchy":
        return {"hierarchy": mesh["hierarchy"], "landmarks": mesh.get("landmarks"), **sizes}
    topology = Topology.load(mesh["topology"])
    simplification = {name: mesh.get(name, value) for name, value in SIMPLIFICATION.items()}
    hierarchy = build_hierarchy(upright(topology.vertices), topology.triangles, **simplification)
    landmarks = topology.landmarks and [list(map(int, one)) for one in topology.landmarks]
    return {"hierarchy": hierarchy.to_config(), "landmarks": landmarks, **sizes}


def upright(vertices: np.ndarray) -> np.ndarray:
    """A face 1 high, the middle of its extent at the origin: float32 `[V, 3]`."""
    low, high = np.min(vertices, axis=0), np.max(vertices, axis=0)
    if not high[1] > low[1]:
        raise ValueError("the topology's face has no height: y must point up")
    return ((vertices - (low + high) / 2) / (high[1] - low[1])).astype(np.float32)
