"""What many tests share: the bundled model, built once, the bundled photo, and the way to the development data."""

import ctypes
import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

import retinaface_tf  # noqa: F401 - before TensorFlow: it chooses oneDNN, for users and for tests

ROOT = Path(__file__).resolve().parents[1]


def shared_state():
    """What one test could leave to the next: tables that users may extend, the environment, the folder, the policy."""
    state = {"folder": Path.cwd()} | {
        f"${name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"
    }
    for module, table in (("inference.formats", "FORMATS"), ("network.backbones", "BACKBONES")):
        if loaded := sys.modules.get(f"retinaface_tf.{module}"):
            state[table] = list(getattr(loaded, table))
    if keras := sys.modules.get("keras"):
        state["dtype policy"] = keras.config.dtype_policy().name
    return state


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    before = shared_state()
    yield
    after = shared_state()
    # A package may add a variable when it is first imported.
    changed = [name for name in before if before[name] != after.get(name)]
    assert not changed, f"the test changed and did not restore: {changed}"


@pytest.fixture(scope="module", autouse=True)
def _memory_given_back():
    """After each file its models go, which refer to themselves, and the system gets back what they and converters left.

    Python and the C library alone let hundreds of MB pile up over the files of a worker.
    """
    yield
    if "keras" in sys.modules:
        gc.collect()
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)


@pytest.fixture(scope="session")
def sample_photo():
    """Path of the bundled photo: 512 x 512, one face at about x 178 to 273, y 57 to 177."""
    return ROOT / "retinaface_tf" / "samples" / "astronaut.jpg"


@pytest.fixture(scope="session")
def bundled_model():
    """The default preset with its weights. Do not change it."""
    from retinaface_tf import RetinaFace

    return RetinaFace.from_preset("mobilenet025_wider")


@pytest.fixture
def one_model(monkeypatch, bundled_model):
    """Every command of a test shares the bundled model, which takes a second to build."""
    from retinaface_tf.detector import RetinaFace

    original = RetinaFace.from_preset.__func__
    monkeypatch.setattr(
        RetinaFace,
        "from_preset",
        classmethod(lambda cls, name, **o: bundled_model if name == "mobilenet025_wider" else original(cls, name, **o)),
    )


@pytest.fixture(scope="session")
def bundled_onnx(bundled_model, tmp_path_factory):
    """Path of the default preset as an ONNX file of any size. Do not change it."""
    from retinaface_tf.export.onnx import export_onnx
    from retinaface_tf.export.options import ExportOptions

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return export_onnx(bundled_model, path, ExportOptions(preset="mobilenet025_wider"))


@pytest.fixture(scope="session")
def development_data():
    """Folder of photos, ground truth and checkpoints that are not part of the project."""
    folder = Path(os.environ.get("RETINAFACE_TF_DATA") or ROOT / ".." / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the development data, which is not part of the project, in $RETINAFACE_TF_DATA ({folder})")
    return folder


@pytest.fixture(scope="session")
def exported_saved_model(bundled_model, tmp_path_factory):
    """Folder of the default preset's SavedModel, version 1. Do not change it."""
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.saved_model import export_saved_model

    path = tmp_path_factory.mktemp("exports") / "retinaface"
    export_saved_model(bundled_model, path, ExportOptions(preset="mobilenet025_wider"))
    return path


@pytest.fixture(scope="session")
def saved_model_detector(exported_saved_model):
    """That SavedModel, opened."""
    from retinaface_tf import load

    return load(exported_saved_model)


@pytest.fixture(scope="session")
def any_size_tflite(bundled_model, tmp_path_factory):
    """Path of the default preset as a .tflite of any size, 32-bit floats. Do not change it."""
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite

    path = tmp_path_factory.mktemp("exports") / "any.tflite"
    return export_tflite(bundled_model, path, ExportOptions(preset="mobilenet025_wider"))


@pytest.fixture(scope="session")
def exported_tflite(bundled_model, tmp_path_factory):
    """Path of the default preset as a .tflite of 320 x 320 pixels, 32-bit floats. Do not change it."""
    from retinaface_tf.export.options import ExportOptions
    from retinaface_tf.export.tflite import export_tflite

    path = tmp_path_factory.mktemp("exports") / "faces.tflite"
    return export_tflite(bundled_model, path, ExportOptions(size=(320, 320), preset="mobilenet025_wider"))
