"""Fewer vertices for the same face: spread evenly, left and right alike, landmarks kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinaface_tf.common.imports import tensorflow_needed

if TYPE_CHECKING:
    from retinaface_tf.dense.topology import Topology


def choose_vertices(topology: Topology, count: int) -> np.ndarray:
    """Which vertices stay: the landmarks', then always the one furthest from all that stay, with its mirror partner.

    Args:
        topology: `Topology`, symmetric.
        count: int, at most its vertices and at least those of the landmarks.

    Returns:
        int64 `[count]`, ascending. The 68 points stay too if there is room for them.

    Raises:
        ValueError: `count` is out of its range.
    """
    wanted = set(sum(topology.landmarks or (), ()))
    if not max(4, len(wanted)) <= count <= len(topology):
        raise ValueError(
            f"a subset must have from {max(4, len(wanted))} vertices, those of the landmarks, to all {len(topology)}. "
            f"Received: {count}"
        )
    if topology.points_68 is not None and len(wanted | set(topology.points_68)) <= count:
        wanted |= set(topology.points_68)
    kept = sorted(wanted) or [int(topology.vertices[:, 2].argmax())]
    vertices, mirror = topology.vertices.astype(np.float64), topology.mirror
    distance = np.min([np.linalg.norm(vertices - vertices[one], axis=1) for one in kept], axis=0)
    middle = mirror == np.arange(len(topology))
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


def triangulate(topology: Topology, kept: np.ndarray) -> np.ndarray:
    """Triangles over some vertices: Delaunay's, in the unrolled face, where the face has skin.

    Args:
        topology: `Topology`.
        kept: int `[K]`.

    Returns:
        int32 `[F, 3]`, indices into `kept`, counter-clockwise from outside.
    """
    with tensorflow_needed("a subset of vertices"):
        from scipy.spatial import Delaunay
    flat = (topology.vertices[:, :2] if topology.uv is None else topology.uv).astype(np.float64)
    if _signed_areas(flat, topology.triangles).sum() < 0:
        flat = flat * [-1, 1]
    triangles = Delaunay(flat[kept]).simplices
    clockwise = _signed_areas(flat[kept], triangles) < 0
    triangles[clockwise] = triangles[clockwise][:, ::-1]
    middles = flat[kept][triangles].mean(axis=1)
    a, b, c = (flat[topology.triangles[:, corner]] for corner in range(3))
    sides = [_cross(middles[:, None] - start, end - start) for start, end in ((a, b), (b, c), (c, a))]
    skin = (np.max(sides, axis=0) <= 1e-12).any(axis=1)  # to the left of all three sides of some triangle
    return triangles[skin].astype(np.int32)


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _signed_areas(points, triangles):
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return _cross(b - a, c - a) / 2
