"""Small meshes whose shape is known: for tests of the mesh branch."""

import numpy as np


def dome(side=13):
    """A face-like half ellipsoid over a grid: 1 high, 0.8 wide, 0.4 deep, open behind.

    Returns:
        (float32 `[side * side, 3]`, int32 `[2 * (side - 1) ** 2, 3]`), counter-clockwise seen from +z.
    """
    y, x = np.meshgrid(np.linspace(0.5, -0.5, side), np.linspace(-0.4, 0.4, side), indexing="ij")
    z = 0.4 * np.sqrt(np.maximum(1 - 2 * y**2 - 3.125 * x**2, 0)) - 0.2
    return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32), _grid(side)


def sphere(side=40):
    """A unit sphere around the origin, by latitude and longitude, its seam welded."""
    theta, phi = np.linspace(0, np.pi, side), np.linspace(0, 2 * np.pi, side, endpoint=False)
    t, p = np.meshgrid(theta[1:-1], phi, indexing="ij")
    ring = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], axis=-1).reshape(-1, 3)
    triangles, top, bottom = [], len(ring), len(ring) + 1
    for i in range(side - 2):
        for j in range(side):
            a, b = i * side + j, i * side + (j + 1) % side
            if i < side - 3:
                triangles += [(a, a + side, b), (b, a + side, b + side)]
            if i == 0:
                triangles.append((top, a, b))
            if i == side - 3:
                triangles.append((bottom, b, a))
    return np.concatenate([ring, [[0, 1, 0], [0, -1, 0]]]).astype(np.float32), np.array(triangles, np.int32)


def _grid(side):
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    upper = np.stack([corner, corner + side, corner + 1], axis=1)
    lower = np.stack([corner + 1, corner + side, corner + side + 1], axis=1)
    return np.concatenate([upper, lower]).astype(np.int32)
