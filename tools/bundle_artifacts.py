"""Make the `.tflite` files that a preset with weights brings along, fp32 and int8:

    python tools/bundle_artifacts.py [PRESET ...] --calibration PHOTOS

They are written into the preset's folder, and their sha256 into `preset.json`. `tests/test_bundled_artifacts.py`
compares them with Keras. Run it again whenever a preset's weights or the exporter change what the file finds.
`--calibration` is a folder of photos of people, for int8; without it, the int8 file stays as it is.
"""

import argparse
import hashlib
import json
from pathlib import Path

from retinaface_tf import presets
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import import_tensorflow

FILES = {"tflite": "faces.tflite", "tflite_int8": "faces_int8.tflite"}


def bundle(name: str, calibration: Path | None = None) -> list[Path]:
    """Write a preset's `.tflite` files for any size and enter them in the card; their paths."""
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite

    folder = presets.FOLDER / name
    card_path = folder / presets.CARD
    card = json.loads(card_path.read_text("utf-8"))
    entries, paths = card.setdefault("artifacts", {}), []
    for key, file in FILES.items():
        int8 = {"quantize": "int8", "calibration": calibration} if key == "tflite_int8" else {}
        if int8 and calibration is None:
            continue
        path = export_tflite(RetinaFace.from_preset(name), folder / file, ExportOptions(preset=name), **int8)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        command = f"python tools/bundle_artifacts.py {name}{' --calibration PHOTOS' if int8 else ''}"
        entries[key] = {"file": file, "sha256": digest, "command": command}
        paths.append(path)
    with atomic_write(card_path) as file:
        file.write(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return paths


def main() -> None:
    with_weights = [name for name in presets.names() if "weights" in presets.load(name)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=with_weights, metavar="PRESET", help="default: all with weights")
    parser.add_argument("--calibration", type=Path, metavar="PHOTOS", help="folder of photos, for int8")
    args = parser.parse_args()
    import_tensorflow()
    for name in args.presets:
        print(*bundle(name, args.calibration), sep="\n")


if __name__ == "__main__":
    main()
