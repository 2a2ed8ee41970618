"""Put a model into the Android sample: python tools/android_model.py faces.tflite exports/android

Beside the model it writes a Kotlin file with the facts that the sample needs, from the model's own metadata.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import PathLike
from retinaface_tf.inference.tflite import TFLiteModel

MODEL_FILE = "faces.tflite"
ASSET = Path("app/src/main/assets") / MODEL_FILE
SOURCE = Path("app/src/main/kotlin/com/example/retinaface/ModelInfo.kt")
# Kotlin's names of the outputs.
OUTPUTS = {"BOXES": "boxes", "SCORES": "scores", "LANDMARK_POINTS": "landmarks", "COUNT": "count"}


def kotlin_source(metadata: Mapping[str, Any]) -> str:
    """The text of `ModelInfo.kt`.

    Args:
        metadata: dict as `metadata.describe` makes it, of an artifact with a size.

    Returns:
        str.

    Raises:
        ValueError: if the artifact lacks an output that the sample reads.
    """
    height, width = metadata["input"]["size"]
    named = {output["name"] for output in metadata["outputs"]}
    if missing := [name for name in OUTPUTS.values() if name not in named]:
        raise ValueError(f"the sample reads the outputs {', '.join(missing)}. The artifact has: {sorted(named)}")
    red, green, blue = metadata["fill"]
    constants = {
        "FILE": f'"{MODEL_FILE}"',
        "SIGNATURE": '"serving_default"',
        "IMAGES": f'"{metadata["input"]["name"]}"',
        **{constant: f'"{name}"' for constant, name in OUTPUTS.items()},
        "WIDTH": width,
        "HEIGHT": height,
        "MAX_DETECTIONS": metadata["max_detections"],
        "FILL": f"0xFF{red:02X}{green:02X}{blue:02X}.toInt()",
        "WEIGHTS_SHA256": f'"{metadata["weights_sha256"]}"',
    }
    lines = [f"    const val {name} = {value}\n" for name, value in constants.items()]
    landmarks = ", ".join(f'"{name}"' for name in metadata["landmark_order"])
    return (
        "package com.example.retinaface\n\n"
        f"/** Facts of {MODEL_FILE}, from its metadata, by tools/android_model.py. Not to be edited. */\n"
        "object ModelInfo {\n" + "".join(lines) + f"    val LANDMARKS = listOf({landmarks})\n}}\n"
    )


def equip(model: PathLike, sample: PathLike) -> list[Path]:
    """Copy a `.tflite` into the sample's folder and write the Kotlin file that belongs to it.

    Args:
        model: path of an artifact of `retinaface-tf export tflite`.
        sample: path of the folder `exports/android`, or of a copy.

    Returns:
        list of the paths that were written.

    Raises:
        ValueError: if that is no such artifact, or no such folder.
        OSError: if something can't be read or written.
    """
    sample = Path(sample)
    if not (sample / SOURCE).parent.is_dir():
        raise ValueError(f"{sample}: not the Android sample (it has no {SOURCE.parent})")
    source = kotlin_source(TFLiteModel(model).metadata)
    (sample / ASSET).parent.mkdir(exist_ok=True)
    with Path(model).open("rb") as original, atomic_write(sample / ASSET, "wb") as copy:
        shutil.copyfileobj(original, copy)
    with atomic_write(sample / SOURCE) as file:
        file.write(source)
    return [sample / ASSET, sample / SOURCE]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python tools/android_model.py MODEL.tflite exports/android")
    try:
        for path in equip(*sys.argv[1:]):
            print(f"written: {path}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}" if error.filename else f"{error}")
    except (ValueError, ImportError) as error:
        sys.exit(f"{error}")
