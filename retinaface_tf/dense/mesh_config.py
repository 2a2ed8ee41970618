"""What a user says of a mesh branch, made complete: a topology becomes a mesh at several resolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinaface_tf.dense.camera import CAMERA
from retinaface_tf.dense.lighting import LIGHT
from retinaface_tf.dense.mesh_hierarchy import build_hierarchy
from retinaface_tf.dense.topology import Topology

SIZES = {"filters": 16, "order": 3, "codes": 128}
SIMPLIFICATION = {"levels": 4, "factor": 4}


def complete_mesh(dense: dict[str, Any]) -> dict[str, Any]:
    """All that `RetinaFace` has to know of its mesh branch.

    Args:
        dense: dict with "form", "mesh"; "topology", the path of one (see `Topology.load`) or a dict that
            `Topology.to_dict` made; and any of "filters", "order" and "codes" (see `MeshDecoder`), "levels" and
            "factor" (see `build_hierarchy`). Or dict that this function returned.

    Returns:
        dict "form", "topology" (numbers), "hierarchy", "embedding", "filters", "order" and "codes", JSON-ready: file
        and library are not needed again.

    Raises:
        ValueError: for a name or value that can't be used.
        OSError: if the file can't be read.
        ImportError: naming the extra, without the library that simplifies meshes.
    """
    complete = "hierarchy" in dense
    known = ["form", "topology", *SIZES, *(["hierarchy", "embedding"] if complete else SIMPLIFICATION)]
    if unknown := [name for name in dense if name not in known]:
        raise ValueError(f"`dense` of form mesh has no field {unknown[0]!r}. Expected some of {known}")
    if "topology" not in dense:
        raise ValueError("`dense` needs a `topology`: path of an .obj, or of an archive with one")
    for name in (*SIZES, *SIMPLIFICATION):
        least, kinds = (1.5, (int, float)) if name == "factor" else (1, (int,))
        value = dense.get(name, 2)
        if not isinstance(value, kinds) or isinstance(value, bool) or value < least:
            raise ValueError(f"`dense.{name}` must be a number of at least {least}. Received: {value!r}")
    sizes = {name: dense.get(name, value) for name, value in SIZES.items()}
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
