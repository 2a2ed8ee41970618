"""Weights to start from: of the same architecture, or of the plain one that a deformable one or a cascade extends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_tf.dense.mesh_branch import begin_in_boxes
from retinaface_tf.network.heads import FIRST

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


# What the model may have more than the weights, and the value that is without it.
EXTENSIONS = {"deformable": None, "cascade": False, "dense": None}


def start_from(model: RetinaFace, source: RetinaFace) -> None:
    """Write the weights of one `RetinaFace` into another.

    Offsets of deformable convolutions that the source has not stay at 0, where they make plain ones. The first heads of
    a new cascade and their context modules get the weights of the source's only ones, and so do the others, but for
    boxes: there heads begin at 0, so that faces and boxes are those of the source. Its landmarks were relative to the
    anchors, and have to learn that they no longer are. A new dense branch stays fresh, but for where a mesh's
    faces begin: see `begin_in_boxes`.

    Args:
        model, source: `RetinaFace`; any dtypes.

    Raises:
        ValueError: naming what differs in their architectures.
    """
    theirs, ours = ({**m.get_config(), "name": None, "dtype": None} for m in (source, model))
    new = {name for name, without in EXTENSIONS.items() if ours[name] != without and theirs[name] == without}
    if differing := [name for name in ours if ours[name] != theirs[name] and name not in new]:
        # A topology is pages of numbers.
        there, here = ({name: str(each[name])[:200] for name in differing} for each in (theirs, ours))
        raise ValueError("; ".join(f"{name} is {there[name]}, not {here[name]}" for name in differing))
    values = {variable.path: variable for variable in source.variables}
    boxes = {f"box_head_{level}" for level in model.anchor_generator.sizes} if "cascade" in new else set()
    for variable in model.variables:
        layer, _, rest = variable.path.partition("/")
        name = f"{layer.removeprefix(FIRST)}/{rest}" if "cascade" in new else variable.path
        if layer in boxes:
            variable.assign(0 * variable)
        elif name in values:
            variable.assign(values[name])
        elif "dense" in new and variable.path.startswith(("vertex_head_", "vertex_decoder/")):
            continue  # fresh
        elif "/offsets/" not in name:
            raise ValueError(f"nothing to start {name} from")
    if "dense" in new and ours["dense"].get("form") == "mesh":
        begin_in_boxes(model)
