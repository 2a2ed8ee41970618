"""Ready-made models as data: a folder each, with a card (preset.json) and, where they may be shipped, the weights.

The card holds the architecture (arguments of `RetinaFace`), the weights' file and sha256, their provenance, licence and
measured scores. Weights are an `.npz`: variable paths -> float32 arrays, which the same numbers always write to the
same bytes.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_tf.common.types import PathLike

FOLDER = Path(__file__).parent
CARD = "preset.json"


def names() -> list[str]:
    """Names of the bundled presets: sorted list of str."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def load(name: PathLike) -> dict[str, Any]:
    """The card of a preset.

    Args:
        name: str, one of `names()`, or the path of a folder of your own with a `preset.json` in it.

    Returns:
        dict with "name", "description", "architecture" and, if there are any, "weights" and "recipe".

    Raises:
        ValueError: for another name, listing the known ones, or a file that is no card.
    """
    path = _folder(name) / CARD
    if name not in names() and not path.is_file():
        raise ValueError(
            f"`preset` must be one of {names()}, a folder with a {CARD}, or a .keras file. Received: {name!r}"
        )
    try:
        card = json.loads(path.read_text("utf-8"))
        if not isinstance(card["architecture"], dict):
            raise TypeError("its architecture is not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a JSON object with an `architecture`: {error}") from None
    return {"name": name, "description": "", **card}


def _folder(name):
    return FOLDER / name if name in names() else Path(name)


def require_weights(card: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a preset without weights: before its network is built, which takes seconds."""
    if "weights" not in card:
        raise ValueError(
            f"The preset {card['name']!r} is an architecture without weights. Pass weights=False to build it for "
            f"training, or choose one with weights: {[n for n in names() if 'weights' in load(n)]}"
        )


def assign_weights(model: Any, card: Mapping[str, Any]) -> None:
    """Write a preset's weights into a model of its architecture.

    Raises:
        ValueError: if the preset has none, or they don't fit the model.
        OSError: if the file is not the one that the card describes.
    """
    require_weights(card)
    content = (_folder(card["name"]) / card["weights"]["file"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["weights"]["sha256"]:
        raise OSError(
            f"The weights of {card['name']!r} are damaged: sha256 {digest}, expected {card['weights']['sha256']}. "
            "Install retinaface-tf again"
        )
    read_weights(model, content)


def read_weights(model: Any, content: bytes) -> None:
    """Write the bytes of a weights file into a model.

    Args:
        model: Keras model.
        content: bytes, made by `weights_bytes`.

    Raises:
        ValueError: naming every variable that is missing, left over or misshapen.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    variables = {variable.path: variable for variable in model.variables}
    problems = [f"missing {name}" for name in sorted(variables.keys() - arrays.keys())]
    problems += [f"left over {name}" for name in sorted(arrays.keys() - variables.keys())]
    problems += [
        f"misshapen {name}: {arrays[name].shape} does not fit {tuple(variables[name].shape)}"
        for name in sorted(variables.keys() & arrays.keys())
        if arrays[name].shape != tuple(variables[name].shape)
    ]
    if problems:
        raise ValueError("The weights do not fit the model: " + "; ".join(problems[:20]))
    for name, array in arrays.items():
        variables[name].assign(array)


def weights_bytes(model: Any) -> bytes:
    """The weights of a model as the bytes of a file: the same numbers give the same bytes, on any day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for variable in sorted(model.variables, key=lambda v: v.path):
            array = io.BytesIO()
            np.lib.format.write_array(array, np.asarray(variable.numpy(), "<f4"), version=(1, 0), allow_pickle=False)
            # Without a date of its own the entry takes 1980.
            archive.writestr(zipfile.ZipInfo(f"{variable.path}.npy"), array.getvalue())
    return buffer.getvalue()


def artifacts(card: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """The exported models in a preset's folder: name of the format -> (path, sha256)."""
    folder = _folder(card["name"])
    return {name: (folder / entry["file"], entry["sha256"]) for name, entry in card.get("artifacts", {}).items()}


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
