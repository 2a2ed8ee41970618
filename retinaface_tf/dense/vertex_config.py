"""What a user says of the dense branch, made complete: a file of a topology becomes numbers that a model can keep."""

from __future__ import annotations

from typing import Any

from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.mesh_config import complete_mesh
from retinaface_tf.dense.topology import Topology

SIZES = {"embedding": 32, "width": 128}


def complete_dense(dense: PathLike | dict[str, Any]) -> dict[str, Any]:
    """All that `RetinaFace` has to know of its dense branch.

    Args:
        dense: path of a topology (see `Topology.load`); or dict with "topology", the path or a dict that
            `Topology.to_dict` made, and any of "vertices" (int: a subset, see `Topology.subset`), "embedding" and
            "width" (ints, see `VertexDecoder`). With "form": "mesh" see `complete_mesh`.

    Returns:
        dict "topology" (numbers), "embedding" and "width", JSON-ready: files are not needed again.

    Raises:
        ValueError: for a name or value that can't be used.
        OSError: if the file can't be read.
    """
    if not isinstance(dense, dict):
        dense = {"topology": dense}
    if dense.get("form") == "mesh":
        return complete_mesh(dense)
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
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`dense.{name}` must be a positive integer. Received: {value!r}")
    source = dense["topology"]
    topology = Topology.from_dict(source) if isinstance(source, dict) else Topology.load(source)
    if dense.get("vertices") is not None:
        topology = topology.subset(dense["vertices"])
    return {"topology": topology.to_dict(), **sizes}
