"""Vertex labels on their way to the network: they go wherever the landmarks of their face go."""

import tensorflow as tf

VERTICES = ("vertices", "vertices_labelled")  # what faces have beside `augment.FACES`, where a model wants it


def moved(points, function):
    """Points with x and y as `function` makes them of x and y: `[..., 2]` or `[..., 3]`, whose z stays."""
    flat = function(points[..., :2])
    return flat if points.shape[-1] == 2 else tf.concat([flat, points[..., 2:]], axis=-1)


def move_faces(faces, function):
    """Faces whose landmarks and, where they have some, vertices `function` has moved: x and y to x and y."""
    points = {key: moved(faces[key], function) for key in ("landmarks", "vertices") if key in faces}
    return {**faces, **points}


def scale_faces(faces, corner, scale):
    """Faces in a window's pixels: `corner` (x, y) goes to 0, then all is `scale` times as large, depth too."""
    points = {"landmarks": (faces["landmarks"] - corner) * scale}
    if "vertices" in faces:
        points["vertices"] = moved(faces["vertices"], lambda xy: xy - corner) * scale
    boxes = (faces["boxes"] - tf.tile(corner, [2])) * scale
    return {**faces, "boxes": boxes, **points}


def without_labels(num_vertices, faces=0):
    """Vertices of faces that have none: dict of "vertices" float32 `[F, V, 3]` and "vertices_labelled" int32 `[F]`."""
    return {
        "vertices": tf.zeros([faces, num_vertices, 3]),
        "vertices_labelled": tf.zeros([faces], tf.int32),
    }
