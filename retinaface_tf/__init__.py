"""RetinaFace for Keras 3 and TensorFlow: find the faces in photos, with scores and five landmarks.

The public names are imported on first use (PEP 562), so that `import retinaface_tf` and `retinaface-tf --help` start
without TensorFlow.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Under Linux, TensorFlow leaves oneDNN off on x86 processors without VNNI, and `detect` takes twice as long without. It
# reads this once, while it is loaded: a program that imports TensorFlow first keeps its choice, and so does `0` from
# outside.
_machine = os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", "")
if _machine in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_HOMES = {
    "Detections": "retinaface_tf.inference.detections",
    "RetinaFace": "retinaface_tf.detector",
    "align": "retinaface_tf.image.align",
    "evaluate": "retinaface_tf.evaluation.evaluate",
    "load": "retinaface_tf.loading",
    "verify": "retinaface_tf.export.certificate",
    "train": "retinaface_tf.training.trainer",
}
_MODULES = {"export": "retinaface_tf.export"}  # a module that can be called, since the folder has its name

__all__ = ["Detections", "RetinaFace", "__version__", "align", "evaluate", "export", "load", "train", "verify"]

if TYPE_CHECKING:
    from retinaface_tf import export
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.evaluation.evaluate import evaluate
    from retinaface_tf.export.certificate import verify
    from retinaface_tf.image.align import align
    from retinaface_tf.inference.detections import Detections
    from retinaface_tf.loading import load
    from retinaface_tf.training.trainer import train


def __getattr__(name: str) -> Any:
    if name in _HOMES or name in _MODULES:
        from retinaface_tf.common.imports import tensorflow_needed

        with tensorflow_needed(name):
            return import_module(_MODULES[name]) if name in _MODULES else getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Expected one of {__all__}")


def __dir__() -> list[str]:
    return __all__
