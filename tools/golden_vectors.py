"""Write the golden vectors anew: python tools/golden_vectors.py exports/golden

They are the bytes of an image and the faces in it, with which ports in other languages check themselves.
"""

import hashlib
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import LANDMARK_NAMES, PathLike
from retinaface_tf.export.metadata import weights_sha256

PRESET, SIDE = "mobilenet025_wider", 320
PLACES = ((0, 0, 192), (192, 0, 128), (0, 192, 128), (128, 128, 192))  # x, y and side of each copy of the photo
THRESHOLDS: dict[str, Any] = {"score_threshold": 0.5, "nms_threshold": 0.4}
# What an artifact of each precision may differ by: pixels of boxes and landmarks, and of scores.
TOLERANCES = {"fp32": {"pixels": 0.05, "score": 0.001}, "fp16": {"pixels": 0.5, "score": 0.005}}


def golden_image() -> np.ndarray:
    """The bundled photo four times, in sizes from 128 to 192: uint8 array `[320, 320, 3]`."""
    with files("retinaface_tf").joinpath("samples/astronaut.jpg").open("rb") as file:
        photo = Image.open(file).convert("RGB")
    image = Image.new("RGB", (SIDE, SIDE))
    for x, y, side in PLACES:
        image.paste(photo.resize((side, side)), (x, y))
    return np.asarray(image)


def write_golden(folder: PathLike) -> None:
    """Write `image.ppm` and `faces.json`.

    The image is a binary PPM: a header of 15 bytes, then rows of RGB pixels, which any language reads. The faces are
    those of the Python model.
    """
    from retinaface_tf.detector import RetinaFace

    image = golden_image()
    model = RetinaFace.from_preset(PRESET)
    found = model.detect(image, **THRESHOLDS, resize=None, close_ups=False)
    facts = {
        "image": {
            "file": "image.ppm",
            "header_bytes": len(_header()),
            "shape": [1, *image.shape],
            "dtype": "uint8",
            "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        },
        "preset": PRESET,
        "weights_sha256": weights_sha256(model),
        **THRESHOLDS,
        "landmark_order": list(LANDMARK_NAMES),
        "tolerance": TOLERANCES,
        "count": len(found),
        "boxes": _rounded(found.boxes, 3),
        "scores": _rounded(found.scores, 5),
        "landmarks": _rounded(found.landmarks, 3),
    }
    with atomic_write(Path(folder) / "image.ppm", "wb") as file:
        file.write(_header() + image.tobytes())
    with atomic_write(Path(folder) / "faces.json") as file:
        file.write(json.dumps(facts, indent=1) + "\n")


def _header():
    return b"P6\n%d %d\n255\n" % (SIDE, SIDE)


def _rounded(array, digits):
    return np.round(array.astype(np.float64), digits).tolist()


if __name__ == "__main__":
    write_golden(*sys.argv[1:])
