"""A face as a Wavefront OBJ with its skin as a picture: what 3D programs open."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.pose import to_camera
from retinaface_tf.dense.texture import unroll

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology


def write_obj(
    path: PathLike, vertices: np.ndarray, topology: Topology, image: np.ndarray, texture_size: int = 512
) -> None:
    """Write `NAME.obj`, `NAME.mtl` and `NAME.png`: a face, its material and its skin.

    Args:
        path: path of the `.obj`; its folder must be there.
        vertices: float `[V, 3]`, as a detection has them.
        topology: `Topology` of those vertices.
        image: uint8 `[H, W, 3]`, the photo, as the vertices see it.
        texture_size: int, side of the skin in pixels.

    Raises:
        OSError: it can't be written.
    """
    path = Path(path)
    with tensorflow_needed("a face's texture"):
        texture, uv = unroll(image, vertices, topology, texture_size)
    png = io.BytesIO()
    Image.fromarray(texture).save(png, "PNG")
    with atomic_write(path.with_suffix(".png"), "wb") as file:
        file.write(png.getvalue())
    with atomic_write(path.with_suffix(".mtl")) as file:
        file.write(f"newmtl skin\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nmap_Kd {path.with_suffix('.png').name}\n")
    with atomic_write(path) as file:
        file.write(obj_text(vertices, topology.triangles, uv, path.with_suffix(".mtl").name))


def obj_text(vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, material: str) -> str:
    """The OBJ itself: pixels of the photo about the face's middle, y up, z towards the viewer."""
    centred = to_camera(np.asarray(vertices, np.float64) - np.mean(vertices, axis=0))
    lines = [f"mtllib {material}", "o face"]
    lines += ["v {:.4f} {:.4f} {:.4f}".format(*vertex) for vertex in centred]
    lines += ["vt {:.6f} {:.6f}".format(*place) for place in uv]
    lines += ["usemtl skin", "s 1"]
    lines += ["f " + " ".join(f"{corner}/{corner}" for corner in triangle + 1) for triangle in np.asarray(triangles)]
    return "\n".join(lines) + "\n"
