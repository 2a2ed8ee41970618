"""The Android sample: does it know what its model says of itself? It is not built here."""

import hashlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from android_model import ASSET, SOURCE, equip, kotlin_source

from retinaface_tf.inference.tflite import TFLiteModel

SAMPLE = Path(__file__).resolve().parents[1] / "exports" / "android"
CODE = (SAMPLE / SOURCE).parent
MANIFEST = SAMPLE / "app" / "src" / "main" / "AndroidManifest.xml"


def constants(text):
    return dict(re.findall(r'const val (\w+) = "?([\w.]+)"?', text))


def test_the_kotlin_file_is_what_the_metadata_say_now(exported_tflite):
    assert (SAMPLE / SOURCE).read_text("utf-8") == kotlin_source(TFLiteModel(exported_tflite).metadata)


def test_its_names_and_shapes_are_those_of_the_artifact(exported_tflite):
    info = constants((SAMPLE / SOURCE).read_text("utf-8"))
    interpreter = Interpreter(str(exported_tflite))
    signature = interpreter.get_signature_list()[info["SIGNATURE"]]
    assert signature["inputs"] == [info["IMAGES"]]
    most = int(info["MAX_DETECTIONS"])
    shapes = {
        info["BOXES"]: ([1, most, 4], np.float32),
        info["SCORES"]: ([1, most], np.float32),
        info["LANDMARK_POINTS"]: ([1, most, 5, 2], np.float32),
        info["COUNT"]: ([1], np.int32),
    }
    runner = interpreter.get_signature_runner(info["SIGNATURE"])
    details = runner.get_output_details()
    assert {name: (d["shape"].tolist(), d["dtype"]) for name, d in details.items()} == shapes
    (images,) = runner.get_input_details().values()
    assert images["shape"].tolist() == [1, int(info["HEIGHT"]), int(info["WIDTH"]), 3]
    assert images["dtype"] == np.uint8


def test_another_size_and_fill_are_written_out(exported_tflite):
    metadata = TFLiteModel(exported_tflite).metadata
    metadata["input"]["size"] = [480, 640]
    text = kotlin_source({**metadata, "fill": [1, 2, 255], "max_detections": 7})
    for line in ("WIDTH = 640", "HEIGHT = 480", "MAX_DETECTIONS = 7", "FILL = 0xFF0102FF.toInt()"):
        assert f"    const val {line}\n" in text
    with pytest.raises(ValueError, match=r"reads the outputs count\. The artifact has: \['boxes'"):
        kotlin_source({**metadata, "outputs": [o for o in metadata["outputs"] if o["name"] != "count"]})


def test_the_code_uses_nothing_else():
    known = {*constants((SAMPLE / SOURCE).read_text("utf-8")), "LANDMARKS"}
    for path in CODE.glob("*.kt"):
        assert set(re.findall(r"ModelInfo\.(\w+)", path.read_text("utf-8"))) <= known


def test_equip_puts_model_and_file_into_the_sample(exported_tflite, tmp_path):
    (tmp_path / SOURCE).parent.mkdir(parents=True)
    (tmp_path / "app/src/main").mkdir(parents=True, exist_ok=True)
    assert equip(exported_tflite, tmp_path) == [tmp_path / ASSET, tmp_path / SOURCE]
    assert (tmp_path / ASSET).read_bytes() == exported_tflite.read_bytes()
    assert (tmp_path / SOURCE).read_bytes() == (SAMPLE / SOURCE).read_bytes()
    with pytest.raises(ValueError, match="not the Android sample"):
        equip(exported_tflite, tmp_path / "app")
    shutil.copy(SAMPLE / "build.gradle.kts", tmp_path / "no.tflite")
    with pytest.raises(ValueError, match="not an artifact of `retinaface-tf export`"):
        equip(tmp_path / "no.tflite", tmp_path)


def test_the_command_says_what_it_wrote_or_what_is_not_there(exported_tflite, tmp_path):
    (tmp_path / SOURCE).parent.mkdir(parents=True)
    command = [sys.executable, Path(__file__).resolve().parents[1] / "tools" / "android_model.py"]
    done = subprocess.run([*command, exported_tflite, tmp_path], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"written: {tmp_path / ASSET}", f"written: {tmp_path / SOURCE}"]
    failed = subprocess.run([*command, "no.tflite", tmp_path], capture_output=True, text=True)
    assert (failed.returncode, failed.stderr) == (1, "no.tflite: No such file or directory\n")


def test_the_manifest_names_the_activity_and_asks_for_the_camera():
    name = "{http://schemas.android.com/apk/res/android}name"
    manifest = ElementTree.parse(MANIFEST).getroot()
    assert manifest.find("uses-permission").get(name) == "android.permission.CAMERA"
    activity = manifest.find("application/activity").get(name).removeprefix(".")
    assert f"class {activity} : ComponentActivity()" in (CODE / f"{activity}.kt").read_text("utf-8")
    package = f'namespace = "{CODE.relative_to(CODE.parents[2]).as_posix().replace("/", ".")}"'
    assert package in (SAMPLE / "app" / "build.gradle.kts").read_text("utf-8")


def test_the_gradle_wrapper_is_the_released_one():
    """Checksums as published on gradle.org/release-checksums for 9.4.1."""
    jar = (SAMPLE / "gradle" / "wrapper" / "gradle-wrapper.jar").read_bytes()
    assert hashlib.sha256(jar).hexdigest() == "55243ef57851f12b070ad14f7f5bb8302daceeebc5bce5ece5fa6edb23e1145c"
    properties = (SAMPLE / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text("utf-8")
    assert "gradle-9.4.1-bin.zip" in properties
    assert "distributionSha256Sum=2ab2958f2a1e51120c326cad6f385153bb11ee93b3c216c5fccebfdfbb7ec6cb" in properties
    assert (SAMPLE / "gradlew").stat().st_mode & 0o111
