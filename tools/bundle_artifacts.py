"""Make the `.tflite` that every preset with weights brings along: python tools/bundle_artifacts.py [PRESET ...]

It is written into the preset's folder, and its sha256 into `preset.json`. `tests/test_bundled_artifacts.py` compares it
with Keras. To be run anew whenever a preset's weights or the exporter change what the file finds.
"""

import argparse
import hashlib
import json
from pathlib import Path

from retinaface_tf import presets
from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.imports import import_tensorflow

FILE = "faces.tflite"


def bundle(name: str) -> Path:
    """Write a preset's `.tflite` for any size and enter it in the card; the path of the file."""
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite

    folder = presets.FOLDER / name
    path = export_tflite(RetinaFace.from_preset(name), folder / FILE, ExportOptions(preset=name))
    card_path = folder / presets.CARD
    card = json.loads(card_path.read_text("utf-8"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    command = f"python tools/bundle_artifacts.py {name}"
    card["artifacts"] = {"tflite": {"file": FILE, "sha256": digest, "command": command}}
    with atomic_write(card_path) as file:
        file.write(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return path


def main() -> None:
    with_weights = [name for name in presets.names() if "weights" in presets.load(name)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=with_weights, metavar="PRESET", help="default: all with weights")
    import_tensorflow()
    for name in parser.parse_args().presets:
        print(bundle(name))


if __name__ == "__main__":
    main()
