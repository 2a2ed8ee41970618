"""Texture of a face: unroll its skin from a photo, and write a Wavefront OBJ."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import tensorflow_needed
from retinaface_tf.common.types import PathLike
from retinaface_tf.dense.pose import to_camera

with tensorflow_needed("a face's texture"):
    from scipy import ndimage

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology


def unroll(
    image: np.ndarray, vertices: np.ndarray, topology: Topology, size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a face's texture from a photo.

    What the face hides from the camera is given what is in front of it, stretched.

    Args:
        image: uint8 `[H, W, 3]`.
        vertices: float `[V, 3]`, x and y in pixels of the image.
        topology: `Topology`; one without uv is unrolled by looking at its mean face from the front.
        size: int, side of the texture in pixels.

    Returns:
        (uint8 `[size, size, 3]`, first row at the top, that is at v = 1; float64 `[V, 2]`, the uv used).
    """
    uv = front_uv(topology) if topology.uv is None else topology.uv.astype(np.float64)
    places = uv * [size, -size] + [0, size]  # pixels of the texture, from its top left corner
    triangle, weights = rasterize(places, topology.triangles, size, size)
    covered = triangle >= 0
    corners = np.asarray(vertices, np.float64)[topology.triangles[triangle], :2]
    points = (corners * weights[..., None]).sum(axis=-2)
    planes = np.moveaxis(image.astype(np.float32), -1, 0)
    # A pixel's middle is at half a pixel; beyond the photo its edge goes on.
    where = np.moveaxis(points[..., ::-1] - 0.5, -1, 0)
    texture = np.stack([ndimage.map_coordinates(plane, where, order=1, mode="nearest") for plane in planes], axis=-1)
    # Around the face the nearest skin goes on, so that no background shines through at the seams.
    if covered.any() and not covered.all():
        nearest = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
        texture = texture[tuple(nearest)]
    return np.clip(np.round(texture), 0, 255).astype(np.uint8), uv


def front_uv(topology: Topology) -> np.ndarray:
    """Where the mean face's vertices are as seen from the front: float64 `[V, 2]` in [0, 1], one scale for both."""
    flat = topology.vertices[:, :2].astype(np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    return (flat - (low + high) / 2) / (high - low).max() * 0.98 + 0.5


def rasterize(
    points: np.ndarray, triangles: np.ndarray, height: int, width: int, depth: np.ndarray | None = None
) -> Any:
    """The triangle that covers the center of each pixel, and the position in it.

    Args:
        points: float `[V, 2]`, x and y in pixels.
        triangles: int `[F, 3]`.
        height, width: ints.
        depth: float `[V]`, smaller is nearer; `None` if triangles don't overlap.

    Returns:
        (int32 `[height, width]`, index of the nearest triangle or -1, of equally near ones the first; float64
        `[height, width, 3]`, barycentric weights of its corners).
    """
    triangles = np.asarray(triangles)
    corners = np.asarray(points, np.float64)[triangles]
    low = np.clip(np.floor(corners.min(axis=1) - 0.5), 0, [width, height]).astype(np.int64)
    high = np.clip(np.ceil(corners.max(axis=1) + 0.5), low, [width, height]).astype(np.int64)
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    columns, rows = (high - low).T
    # A row for each pixel of each triangle's bounding box: `triangle`, and the pixel's x and y.
    count = np.where(np.abs(area) < 1e-12, 0, columns * rows)
    triangle = np.repeat(np.arange(len(triangles)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x, y = low[triangle, 0] + place % columns[triangle], low[triangle, 1] + place // columns[triangle]
    dx, dy = x + 0.5 - a[triangle, 0], y + 0.5 - a[triangle, 1]
    second = (dx * ac[triangle, 1] - dy * ac[triangle, 0]) / area[triangle]
    third = (dy * ab[triangle, 0] - dx * ab[triangle, 1]) / area[triangle]
    parts = np.stack([1 - second - third, second, third], axis=-1)
    inside = (parts >= -1e-9).all(axis=-1)
    triangle, parts, pixel = triangle[inside], parts[inside], (y * width + x)[inside]
    far = np.zeros(len(triangle)) if depth is None else (parts * np.asarray(depth)[triangles[triangle]]).sum(axis=-1)
    order = np.lexsort((triangle, far, pixel))
    pixel, first = np.unique(pixel[order], return_index=True)
    index = np.full(height * width, -1, np.int32)
    weights = np.zeros((height * width, 3))
    index[pixel], weights[pixel] = triangle[order[first]], parts[order[first]]
    return index.reshape(height, width), weights.reshape(height, width, 3)


def write_obj(
    path: PathLike, vertices: np.ndarray, topology: Topology, image: np.ndarray, texture_size: int = 512
) -> None:
    """Write `NAME.obj`, `NAME.mtl` and `NAME.png`: a face, its material and its skin, `texture_size` pixels a side.

    `image` is the photo, uint8 `[H, W, 3]`, `vertices` `[V, 3]` as a detection has them. OSError if a file can't be
    written; its folder must be there.
    """
    path = Path(path)
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
    centered = to_camera(np.asarray(vertices, np.float64) - np.mean(vertices, axis=0))
    lines = [f"mtllib {material}", "o face"]
    lines += ["v {:.4f} {:.4f} {:.4f}".format(*vertex) for vertex in centered]
    lines += ["vt {:.6f} {:.6f}".format(*place) for place in uv]
    lines += ["usemtl skin", "s 1"]
    lines += ["f " + " ".join(f"{corner}/{corner}" for corner in triangle + 1) for triangle in np.asarray(triangles)]
    return "\n".join(lines) + "\n"
