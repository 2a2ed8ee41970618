"""The golden vectors of `exports/golden`: does a fresh artifact return what ports in other languages check against?"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from retinaface_tf.export.golden import golden_image, write_golden

GOLDEN = Path(__file__).resolve().parents[1] / "exports" / "golden"
FACES = json.loads((GOLDEN / "faces.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def image():
    content = (GOLDEN / "image.ppm").read_bytes()[FACES["image"]["header_bytes"] :]
    assert hashlib.sha256(content).hexdigest() == FACES["image"]["sha256"]
    return np.frombuffer(content, np.uint8).reshape(FACES["image"]["shape"])


def test_a_fresh_artifact_returns_them(exported_tflite, image):
    outputs = Interpreter(str(exported_tflite)).get_signature_runner("serving_default")(images=image)
    count = int(outputs["count"][0])
    assert count == FACES["count"] == 4
    tolerance = FACES["tolerance"]["fp32"]
    for name, most in (("boxes", "pixels"), ("landmarks", "pixels"), ("scores", "score")):
        np.testing.assert_allclose(outputs[name][0, :count], FACES[name], atol=tolerance[most])
        assert not outputs[name][0, count:].any()


def test_the_command_writes_them_anew(tmp_path):
    write_golden(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.json", "image.ppm"]
    assert (tmp_path / "image.ppm").stat().st_size == (GOLDEN / "image.ppm").stat().st_size
    written = json.loads((tmp_path / "faces.json").read_text("utf-8"))
    assert written.keys() == FACES.keys()
    assert written["weights_sha256"] == FACES["weights_sha256"]
    # Another version of Pillow may decode and resize a little differently; the faces stay.
    assert written["count"] == FACES["count"]
    np.testing.assert_allclose(written["boxes"], FACES["boxes"], atol=1)


def test_the_image_is_that_of_the_code(image):
    assert np.abs(golden_image().astype(int) - image[0]).mean() < 2
