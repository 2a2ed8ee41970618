"""The dense branch as `RetinaFace` sees it: its configuration, and the layer that decodes faces.

A branch is a layer of (rows `[M, D]` of the predictions "vertex", anchors `[M, 4]`) to vertices `[M, V, 3]`, with
`mesh`, the `Topology` of its vertices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.mesh_branch import MeshBranch
from retinaface_tf.dense.mesh_decoder import build_hierarchy
from retinaface_tf.dense.renderer import CAMERA, LIGHT
from retinaface_tf.dense.topology import Topology
from retinaface_tf.dense.vertex_decoder import VertexDecoder

SIZES = {"embedding": 32, "width": 128}
MESH_SIZES = {"filters": 16, "order": 3, "codes": 128}
LARGEST_SIZE = 4096  # of any of these
SIMPLIFICATION = {"levels": 4, "factor": 4}


def complete_dense(dense: PathLike | dict[str, Any]) -> dict[str, Any]:
    """Complete what a user says of the dense branch: the file of a topology becomes numbers that a model can keep.

    Args:
        dense: path of a topology (see `Topology.load`); or dict with "topology", the path or a dict that
            `Topology.to_dict` made, and any of "vertices" (int: a subset, see `Topology.subset`), "embedding" and
            "width" (ints, see `VertexDecoder`). With "form": "mesh" any of "filters", "order" and "codes" (see
            `MeshDecoder`), "levels" and "factor" (see `build_hierarchy`). Or what this function returned.

    Returns:
        dict, JSON-ready: "topology" (numbers), "embedding" and the sizes, of a mesh also "form" and "hierarchy". Files
        and the library that simplifies meshes are not needed again.

    Raises:
        ValueError: for a name or value that can't be used.
        OSError: if the file can't be read.
        ImportError: naming the extra, without the library that simplifies meshes.
    """
    if not isinstance(dense, dict):
        dense = {"topology": dense}
    if dense.get("form") == "mesh":
        return _complete_mesh(dense)
    if dense.get("form", "vertices") != "vertices":
        raise ValueError(f"`dense.form` must be 'vertices' or 'mesh'. Received: {dense['form']!r}")
    dense = {name: value for name, value in dense.items() if name != "form"}
    known = ["topology", "vertices", *SIZES]
    if unknown := [name for name in dense if name not in known]:
        raise ValueError(f"`dense` has no field {unknown[0]!r}. Expected some of {known}")
    if "topology" not in dense:
        raise ValueError("`dense` needs a `topology`: path of an .obj, or of an archive with one")
    sizes = {name: dense.get(name, value) for name, value in SIZES.items()}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
            raise ValueError(f"`dense.{name}` must be a positive integer, at most {LARGEST_SIZE}. Received: {value!r}")
    source = dense["topology"]
    topology = Topology.from_dict(source) if isinstance(source, dict) else Topology.load(source)
    if dense.get("vertices") is not None:
        topology = topology.subset(dense["vertices"])
    return {"topology": topology.to_dict(), **sizes}


def _complete_mesh(dense: dict[str, Any]) -> dict[str, Any]:
    """As `complete_dense`, of the form "mesh"."""
    complete = "hierarchy" in dense
    known = ["form", "topology", *MESH_SIZES, *(["hierarchy", "embedding"] if complete else SIMPLIFICATION)]
    if unknown := [name for name in dense if name not in known]:
        raise ValueError(f"`dense` of form mesh has no field {unknown[0]!r}. Expected some of {known}")
    if "topology" not in dense:
        raise ValueError("`dense` needs a `topology`: path of an .obj, or of an archive with one")
    for name in (*MESH_SIZES, *SIMPLIFICATION):
        least, kinds = (1.5, (int, float)) if name == "factor" else (1, (int,))
        value = dense.get(name, 2)
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= LARGEST_SIZE:
            raise ValueError(
                f"`dense.{name}` must be a number of at least {least}, at most {LARGEST_SIZE}. Received: {value!r}"
            )
    sizes = {name: dense.get(name, value) for name, value in MESH_SIZES.items()}
    source = dense["topology"]
    topology = Topology.from_dict(source) if isinstance(source, dict) else Topology.load(source)
    if complete:
        hierarchy = dense["hierarchy"]
    else:
        simplification = {name: dense.get(name, value) for name, value in SIMPLIFICATION.items()}
        hierarchy = build_hierarchy(upright(topology.vertices), topology.triangles, **simplification).to_config()
    embedding = sizes["codes"] + CAMERA + LIGHT
    kept = {"form": "mesh", "topology": topology.to_dict(), "hierarchy": hierarchy}
    return {**kept, "embedding": embedding, **sizes}


def upright(vertices: np.ndarray) -> np.ndarray:
    """A face of size 1, the root of width times height, the middle of its extent at the origin: float32 `[V, 3]`."""
    low, high = np.min(vertices, axis=0), np.max(vertices, axis=0)
    size = np.sqrt(np.prod((high - low)[:2]))
    if not size > 0:
        raise ValueError("the topology's face has no width or height: x must point right and y up")
    return ((vertices - (low + high) / 2) / size).astype(np.float32)


def dense_heads(dense: dict[str, Any] | None) -> dict[str, tuple[int, ...]]:
    """Predictions that a branch wants of each anchor, from what `complete_dense` returns: dict kind -> shape."""
    return {} if dense is None else {"vertex": (dense["embedding"],)}


def build_dense(dense: dict[str, Any] | None) -> VertexDecoder | MeshBranch | None:
    """The layer of a dense branch from what `complete_dense` returns; `None` without one."""
    if dense is None:
        return None
    options = {name: value for name, value in dense.items() if name != "form"}
    branch: Any = (MeshBranch if dense.get("form") == "mesh" else VertexDecoder)(**options, name="vertex_decoder")
    branch.build((None, branch.embedding))
    return branch
