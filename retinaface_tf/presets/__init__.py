"""Presets: folders with a card (preset.json) and, if bundled, weights.

The card holds the architecture (arguments of `RetinaFace`), the weights' file and sha256, their provenance, license and
measured scores. Weights are an `.npz`: variable paths -> float32 arrays, which the same numbers always write to the
same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common import json_files as js
from retinaface_tf.common.files import atomic_write, read_bytes
from retinaface_tf.common.text import first_line
from retinaface_tf.common.types import PathLike

FOLDER = Path(__file__).parent
CARD, WEIGHTS = "preset.json", "weights.npz"
MAX_CARD = 64_000_000  # bytes; a mesh branch's topology takes a few
MAX_HEADER = 4096  # bytes of an array's header in an .npz
LISTED = 12  # names in a message

ARCHITECTURE = {
    "backbone": js.Optional(js.Text(100)),
    "anchors": js.Optional(js.DictOf(js.ListOf(js.Number(1e-3, 1e5)))),
    "num_filters": js.Optional(js.Int(4, 4096)),
    "shared_context": js.Optional(bool),
    "deformable": js.Optional(js.Choice(("v1", "v2"))),
    "cascade": js.Optional(bool),
    "dense": js.Optional((dict, js.Text())),
    "pixel_mean": js.Optional(js.ListOf(js.Number(), length=3)),
    "pixel_std": js.Optional(js.ListOf(js.Number(low=1e-6), length=3)),
    "variances": js.Optional(js.ListOf(js.Number(low=1e-6), length=2)),
    "folded": js.Optional(bool),
    "dtype": js.Optional(js.Text(100)),
}
FILE = {"file": js.FileName(), "sha256": js.Text(64)}
SCHEMA = {
    "architecture": ARCHITECTURE,
    "description": js.Optional(js.Text(10_000)),
    "weights": js.Optional(FILE),
    "artifacts": js.Optional(js.DictOf(FILE)),
    "recipe": js.Optional(dict),
}


def names() -> list[str]:
    """Names of the bundled presets: sorted list of str."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def load(name: PathLike) -> dict[str, Any]:
    """The card of a preset: one of `names()`, or the path of a folder of your own with a `preset.json` in it.

    Returns:
        dict with "name", "description", "architecture" and, if there are any, "weights" and "recipe". "name" and
        "folder" (`Path`, of the weights) are where it was found, whatever the card says.

    Raises:
        ValueError: for another name, listing the known ones, or a file that is no card.
    """
    name = str(name)
    folder = FOLDER / name if name in names() else Path(name)
    if name not in names() and not (folder / CARD).exists():
        raise ValueError(
            f"`preset` must be one of {names()}, a folder with a {CARD}, or a .keras file. Received: {name!r}"
        )
    card = js.read_json(folder / CARD, SCHEMA, max_bytes=MAX_CARD)
    if unknown := sorted(card["architecture"].keys() - ARCHITECTURE.keys()):
        raise ValueError(
            f"{folder / CARD}: `architecture` has no field {unknown[0]!r}. Expected some of {list(ARCHITECTURE)}"
        )
    return {"description": "", **card, "name": name, "folder": folder}


def save(folder: PathLike, architecture: Mapping[str, Any], variables: Iterable[Any], description: str = "") -> None:
    """Write a preset folder; see `RetinaFace.save_to_preset`.

    Raises:
        ValueError: if a weight is not finite.
        OSError: if it can't be written.
    """
    content = weights_bytes(variables)
    card = {
        "description": description,
        "architecture": dict(architecture),
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(content).hexdigest()},
    }
    with atomic_write(Path(folder) / WEIGHTS, "wb") as file:
        file.write(content)
    with atomic_write(Path(folder) / CARD) as file:
        file.write(json.dumps(card, indent=2) + "\n")


def require_weights(card: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a preset without weights: before its network is built, which takes seconds."""
    if not card.get("weights"):
        raise ValueError(
            f"The preset {card['name']!r} is an architecture without weights. Pass load_weights=False to build it for "
            f"training, or choose one with weights: {[n for n in names() if 'weights' in load(n)]}"
        )


def preset_weights(card: Mapping[str, Any]) -> bytes:
    """The content of a preset's weights file.

    Raises:
        ValueError: if the preset has none.
        OSError: if the file is not the one that the card describes.
    """
    require_weights(card)
    content = read_bytes(card["folder"] / card["weights"]["file"])
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["weights"]["sha256"]:
        again = "Install retinaface-tf again" if card["name"] in names() else "Write the preset again"
        raise OSError(
            f"The weights of {card['name']!r} are damaged: sha256 {digest}, expected {card['weights']['sha256']}. "
            f"{again}"
        )
    return content


def read_weights(variables: Iterable[Any], content: bytes, where: PathLike = "The weights") -> None:
    """Write the bytes of a weights file, made by `weights_bytes`, into all variables of a model.

    Raises:
        ValueError: naming every variable that is missing, left over, misshapen or not finite; begins with `where`.
    """
    variables = list(variables)
    shapes = {variable.path: tuple(variable.shape) for variable in variables}
    assign(variables, parse_weights(content, shapes, where))


def parse_weights(content: bytes, shapes: Mapping[str, Sequence[int]], where: PathLike = "The weights") -> Any:
    """The arrays of a weights file, as float32. None is read before its shape is known to be right, and no pickle is.

    `shapes` are those of all variables of a model, by path; `where` begins the messages.
    """
    arrays, problems = {}, []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            problems += [f"missing {name}" for name in sorted(shapes.keys() - found.keys())]
            problems += [f"left over {name!r}" for name in sorted(found.keys() - shapes.keys())]
            for name in sorted(shapes.keys() & found.keys()):
                with archive.open(found[name]) as file:
                    np.lib.format.read_magic(file)
                    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
                    if shape != tuple(shapes[name]):
                        problems.append(f"misshapen {name}: {shape} does not fit {tuple(shapes[name])}")
                        continue
                    if dtype.kind != "f" or dtype.itemsize > 8:
                        problems.append(f"not floats: {name} of type {dtype}")
                        continue
                    size = math.prod(shape) * dtype.itemsize
                    data = file.read(size + 1)
                    if len(data) != size:
                        problems.append(f"damaged {name}: {len(data)} bytes, not {size}")
                        continue
                    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
                    if not np.isfinite(values).all():
                        problems.append(f"not finite {name}")
                    arrays[name] = values.astype("float32")
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{where}: expected an .npz of weights, found a damaged file ({first_line(error)})") from None
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise ValueError(f"{where} do not fit the model: " + "; ".join(problems[:LISTED]) + more)
    return arrays


def assign(variables: Iterable[Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Assign arrays to the variables of their paths; variables without one stay."""
    for variable in variables:
        if variable.path in arrays:
            variable.assign(arrays[variable.path])


def weights_bytes(variables: Iterable[Any]) -> bytes:
    """Variables as the bytes of a weights file: the same numbers give the same bytes, on any day.

    Raises:
        ValueError: naming a variable that is not finite.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for variable in sorted(variables, key=lambda v: v.path):
            values = np.asarray(variable.numpy(), "<f4")
            if not np.isfinite(values).all():
                raise ValueError(f"the weights {variable.path} are not finite: the model can't be saved as a preset")
            array = io.BytesIO()
            np.lib.format.write_array(array, values, version=(1, 0), allow_pickle=False)
            # Without a date of its own the entry takes 1980.
            archive.writestr(zipfile.ZipInfo(f"{variable.path}.npy"), array.getvalue())
    return buffer.getvalue()


def artifacts(card: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """The exported models in a preset's folder: name of the format -> (path, sha256)."""
    return {
        name: (card["folder"] / entry["file"], entry["sha256"]) for name, entry in (card.get("artifacts") or {}).items()
    }


def verified(artifact: tuple[Path, str]) -> Path:
    """The path of an entry of `artifacts`, whose content was compared with the card.

    Raises:
        OSError: if it is missing, or not the file that the card describes.
    """
    path, sha256 = artifact
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise OSError(f"{path} is damaged: sha256 {digest}, expected {sha256}. Install retinaface-tf again")
    return path
