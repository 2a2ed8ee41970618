"""A face mesh small enough to check by eye, for tests of the dense branch."""

import numpy as np

from retinaface_tf.dense.topology import Topology

#     8 forehead          x to the right, y up, z to the viewer
#   0   1   2   eyes and nose bridge
#   3   4   5   cheeks and the nose's tip
#   6       7   corners of the mouth
VERTICES = [
    *([-2, 2, 0], [0, 2, 1], [2, 2, 0]),
    *([-3, 0, -1], [0, 0, 3], [3, 0, -1]),
    *([-1, -2, 0.5], [1, -2, 0.5], [0, 4, 0]),
]
TRIANGLES = [[0, 3, 4], [0, 4, 1], [1, 4, 2], [2, 4, 5], [3, 6, 4], [4, 6, 7], [4, 7, 5], [0, 1, 8], [1, 2, 8]]
LANDMARKS = [[0], [2], [4], [6], [7]]


def small_topology():
    """Nine vertices, nine triangles, symmetric, with landmarks and uv."""
    vertices = np.array(VERTICES, np.float32)
    return Topology(vertices, TRIANGLES, uv=(vertices[:, :2] + [3, 2]) / 6, landmarks=LANDMARKS)
