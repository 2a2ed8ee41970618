"""The golden vectors of `exports/golden`: does a fresh artifact return what ports in other languages check against?"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from golden_vectors import golden_image, write_golden

pytestmark = pytest.mark.slow  # compiles a C program

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


def test_the_c_program_returns_them(exported_tflite, tmp_path):
    compiler = shutil.which("cc")
    library = Path(ai_edge_litert.__file__).parent
    if compiler is None or not (library / "libLiteRt.so").exists():
        pytest.skip("needs a C compiler, and LiteRT's shared library as its Linux wheel has it")
    program = tmp_path / "faces"
    source = GOLDEN.parent / "c" / "faces.c"
    flags = ["-std=c11", "-Wall", "-Werror", f"-L{library}", "-l:libLiteRt.so", f"-Wl,-rpath,{library}"]
    subprocess.run([compiler, source, "-o", program, *flags], check=True, capture_output=True, text=True)
    result = subprocess.run([program, exported_tflite, GOLDEN / "image.ppm"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = np.array([line.split() for line in result.stdout.splitlines()], float)
    np.testing.assert_allclose(rows[:, 0], FACES["scores"], atol=1e-3)
    np.testing.assert_allclose(rows[:, 1:5], FACES["boxes"], atol=0.05)
    np.testing.assert_allclose(rows[:, 5:].reshape(-1, 5, 2), FACES["landmarks"], atol=0.05)
    missing = subprocess.run([program, exported_tflite, tmp_path / "none.ppm"], capture_output=True, text=True)
    assert missing.returncode == 1
    assert "none.ppm: expected a binary PPM" in missing.stderr
