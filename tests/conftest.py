"""What many tests share: the bundled model, built once, and the bundled photo."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def sample_photo():
    """Path of the bundled photo: 512 x 512, one face at about x 178 to 273, y 57 to 177."""
    return Path(__file__).resolve().parents[1] / "retinaface_tf" / "samples" / "astronaut.jpg"


@pytest.fixture(scope="session")
def bundled_model():
    """The default preset with its weights. Do not change it."""
    from retinaface_tf import RetinaFace

    return RetinaFace.from_preset("mobilenet025_wider")
