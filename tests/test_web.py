"""The page of `exports/web` in a real browser: does it find the faces that Python finds?"""

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import retinaface_tf

pytestmark = pytest.mark.slow  # starts a browser

WEB = Path(__file__).resolve().parents[1] / "exports" / "web"
DRIVER = Path(__file__).with_name("web_page.mjs")
TIMEOUT = 240  # seconds, for a machine that is busy; a few are enough


@pytest.fixture(scope="module")
def browser():
    """Path of Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None or shutil.which("node") is None:
        pytest.skip("needs Chromium and Node.js (Debian: apt-get install chromium nodejs npm)")
    if missing := [n for n in ("@litertjs/core", "playwright-core") if not (WEB / "node_modules" / n).is_dir()]:
        pytest.skip(f"needs {' and '.join(missing)} from npm: npm install --prefix exports/web")
    return found


@pytest.fixture(scope="module")
def site(exported_tflite, tmp_path_factory):
    """URL of the page, with a model beside it, from the handler of serve.py."""
    folder = tmp_path_factory.mktemp("web")
    for name in ("index.html", "faces.js"):
        shutil.copy(WEB / name, folder)
    (folder / "node_modules").symlink_to(WEB / "node_modules")
    shutil.copy(exported_tflite, folder / "faces.tflite")
    (folder / "broken.tflite").write_bytes(exported_tflite.read_bytes()[:100_000])
    spec = importlib.util.spec_from_file_location("serve", WEB / "serve.py")
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    quiet = type("Quiet", (serve.Handler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("path", ["%00", "faces.js%00.txt", "..%2f..%2fetc/passwd", "%ff"])
def test_a_path_that_no_file_can_have_is_an_answer(site, path):
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(site + path)
    assert told.value.code == 404


@pytest.mark.parametrize("word", ["abc", "-1", "99999"])
def test_a_port_that_is_none_is_one_line(word):
    done = subprocess.run([sys.executable, WEB / "serve.py", word], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"expected the number of a port, such as 8001. Received: {word}\n")


def open_page(browser, url, folder, photos=(), webcam=None):
    """What the page shows: when it is ready, after each photo, and with the webcam, if a film is given as one."""
    options = {"web": WEB, "chromium": browser, "profile": folder / "profile", "url": url, "webcam": webcam}
    options |= {"photos": list(photos), "screenshot": None, "unreadable": Path(__file__)}
    command = ["node", DRIVER, json.dumps(options, default=str)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_faces_are_those_of_python(browser, site, exported_tflite, sample_photo, tmp_path):
    photo = Image.open(sample_photo).convert("RGB")
    turned = tmp_path / "turned.jpg"  # wide, larger than the model's size, and upright only by its EXIF orientation
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = photo.crop((0, 0, 512, 300)).resize((1024, 600))
    wide.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    small = tmp_path / "small.png"  # smaller than it, half transparent
    photo.crop((120, 20, 340, 220)).save(small)
    Image.merge("RGBA", [*Image.open(small).split(), Image.new("L", (220, 200), 128)]).save(small)
    empty = tmp_path / "empty.png"
    Image.new("RGB", (100, 90), "gray").save(empty)
    film = tmp_path / "film.mjpeg"  # a row of JPEG files
    photo.resize((640, 480)).save(film, "JPEG", quality=95)
    film.write_bytes(film.read_bytes() * 3)

    photos = [sample_photo, turned, small, empty, DRIVER]
    ready, *shown, no_image, filmed, filmed_twice, stopped, gone = open_page(
        browser, site, tmp_path, photos, webcam=film
    )
    assert "mobilenet025_wider, 320 x 320 pixels, fp32" in ready["model"]
    detector = retinaface_tf.load(exported_tflite)
    for path, seen in zip(photos, shown, strict=False):
        expected = detector.detect(path, resize=None, close_ups=False)
        assert seen["status"].startswith("0 faces" if path == empty else "1 face in")
        assert len(seen["faces"]) == len(expected) == (path != empty)
        for face, box, score, points in zip(
            seen["faces"], expected.boxes, expected.scores, expected.landmarks, strict=True
        ):
            np.testing.assert_allclose(face["box"], box, atol=0.2)
            np.testing.assert_allclose(face["score"], score, atol=0.005)
            np.testing.assert_allclose(np.reshape(face["landmarks"], (5, 2)), points, atol=0.2)
    assert no_image["status"] == "web_page.mjs: not an image that this browser can read"
    (face,) = filmed["faces"]
    np.testing.assert_allclose(face["box"], detector.detect(photo.resize((640, 480))).boxes[0], atol=5)
    # Pressed twice there is one camera; after a photo, even an unreadable one, there is none, and nothing is shown.
    assert (filmed_twice["cameras"], stopped["cameras"]) == (1, 0)
    assert len(filmed_twice["faces"]) == 1 and stopped["faces"] == []
    assert stopped["status"] == "test_web.py: not an image that this browser can read"
    assert (gone["status"], gone["faces"], gone["cameras"]) == ("The webcam has stopped", [], 0)


@pytest.mark.parametrize(
    ("model", "message"), [("none.tflite", "404"), ("broken.tflite", "not a file of retinaface-tf export tflite")]
)
def test_a_model_that_is_none_is_one_line(browser, site, tmp_path, model, message):
    (shown,) = open_page(browser, f"{site}?model={model}", tmp_path)
    assert shown["status"].startswith(f"{model}: ")
    assert message in shown["status"]


def test_the_names_in_the_page_are_those_of_the_artifact(exported_tflite):
    code = (WEB / "faces.js").read_text("utf-8")
    signature = Interpreter(str(exported_tflite)).get_signature_list()["detect"]
    assert 'run("detect", inputs)' in code
    for name in signature["inputs"]:
        assert f"      {name}: new Tensor(" in code
    for name in signature["outputs"]:
        assert f"values.{name}" in code


def test_the_page_may_use_threads(site):
    with urllib.request.urlopen(site) as response:
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert b'src="faces.js"' in response.read()
