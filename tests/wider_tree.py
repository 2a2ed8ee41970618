"""A tiny WIDER FACE tree made by code: photos, and the same faces in each of the published annotation forms.

And the way to the real data, for tests that have it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

DATA = Path(os.environ.get("RETINAFACE_TF_DATA") or Path(__file__).resolve().parents[1] / ".." / "shared" / "data")


def needs_data(*parts):
    """Skip a test where these folders of the development data are missing."""
    missing = [part for part in parts if not (DATA / part).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(parts)} in $RETINAFACE_TF_DATA")


# Photo -> faces: x y w h, and five (x, y, occluded) or None where landmarks are not labeled.
POINTS = [(30.0, 40.0, 0), (50.0, 40.5, 0), (40.0, 50.0, 0), (32.0, 60.0, 1), (48.0, 60.0, 1)]
FACES = {
    "0--Parade/0_Parade_a_1.jpg": [((20, 30, 40, 50), POINTS), ((80, 10, 12, 16), None)],
    "0--Parade/0_Parade_b_2.jpg": [((5, 6, 20, 24), None)],
    "1--Handshaking/1_Handshaking_c_3.jpg": [],
    "1--Handshaking/1_Handshaking_d_4.jpg": [((60, 20, 30, 40), None), ((10, 10, 8, 8), None), ((90, 70, 9, 9), None)],
}
# blur expression illumination invalid occlusion pose
FLAGS = (2, 1, 1, 0, 2, 1)


def make_photos(folder, names=tuple(FACES), size=(120, 100), **save):
    """Smooth, distinct photos of `size`, width and height."""
    for seed, name in enumerate(names):
        small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)
        for (x, y, w, h), _ in FACES.get(name, []):
            ImageDraw.Draw(picture).ellipse((x, y, x + w, y + h), fill=(230, 190, 160))
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **save)


def write_label(path, faces=None):
    lines = []
    for name, those in (FACES if faces is None else faces).items():
        lines.append(f"# {name}")
        for box, points in those:
            triples = points or [(-1.0, -1.0, -1.0)] * 5
            numbers = [f"{x} {y} {float(state)}" for x, y, state in triples]
            lines.append(" ".join([*map(str, box), *numbers, "0.82" if points else "-1"]))
    Path(path).write_text("\n".join(lines) + "\n", "utf-8")
    return path


def write_bbx(path, faces=None):
    lines = []
    for name, those in (FACES if faces is None else faces).items():
        lines += [name, str(len(those))]
        lines += [" ".join(map(str, (*box, *FLAGS))) for box, _ in those] or ["0 0 0 0 0 0 0 0 0 0"]
    Path(path).write_text(" \n".join(lines) + " \n", "utf-8")
    return path


def write_mat(path, faces=None):
    from scipy.io import savemat

    faces = FACES if faces is None else faces
    events = sorted({name.split("/")[0] for name in faces})
    keys = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    content = {"event_list": _cells([np.array([event]) for event in events])}
    photos, boxes, flags = [], [], {key: [] for key in keys}
    for event in events:
        names = [name for name in faces if name.startswith(f"{event}/")]
        photos.append(_cells([np.array([name.split("/")[1].removesuffix(".jpg")]) for name in names]))
        boxes.append(_cells([np.array([box for box, _ in faces[name]], float).reshape(-1, 4) for name in names]))
        for key, value in zip(keys, FLAGS, strict=True):
            columns = [np.full((len(faces[name]), 1), value, np.uint8) for name in names]
            flags[key].append(_cells(columns))
    content |= {"file_list": _cells(photos), "face_bbx_list": _cells(boxes)}
    content |= {f"{key}_label_list": _cells(value) for key, value in flags.items()}
    savemat(path, content)
    return path


def _cells(values):
    cells = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        cells[index, 0] = value
    return cells
