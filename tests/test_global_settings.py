"""Global settings of Keras and Python: each leaves detection, training and export as they are, or is named."""

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from retinaface_tf import RetinaFace

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import keras
exec({setting!r})
import numpy as np
import retinaface_tf
from retinaface_tf import RetinaFace
from retinaface_tf.training.objective import Objective

photo, folder = sys.argv[1:]
model = RetinaFace.from_preset("mobilenet025_wider")
found = model.detect(photo)
print("detect", len(found), found.scores.dtype, *found.boxes[0].round().astype(int))
small = RetinaFace(num_filters=8, anchors={{"P3": (8,), "P4": (16,), "P5": (32,)}})
small.compile(keras.optimizers.SGD(0.01), loss=Objective())
faces = {{
    "boxes": np.array([[[8, 8, 40, 40]]], "float32"),
    "landmarks": np.full((1, 1, 5, 2), 20, "float32"),
    "visible": np.ones((1, 1, 5), "int32"),
}}
image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("uint8")
before = small.get_layer("box_head_P5").convolution.kernel.numpy()
losses = []
for _ in range(30):  # float16 leaves out steps until the scale of the loss fits
    logs = small.train_on_batch(image, faces, return_dict=True)
    small.reset_metrics()
    losses.append(logs["loss"])
after = small.get_layer("box_head_P5").convolution.kernel.numpy()
finite = all(np.isfinite(v.numpy().astype("float32")).all() for v in small.variables)
learned = losses[-1] < 0.8 * losses[0] and finite and (before != after).any()
print("train", bool(learned), *(round(float(loss), 3) for loss in losses[::10]), losses[-1])
path = model.export(folder + "/faces.tflite")
print("export", *retinaface_tf.load(path).detect(photo).boxes[0].round().astype(int))
"""
SETTINGS = {
    "channels_first": "keras.config.set_image_data_format('channels_first')",
    "floatx float16": "keras.config.set_floatx('float16')",
    "floatx float64": "keras.config.set_floatx('float64')",
    "mixed_float16": "keras.mixed_precision.set_global_policy('mixed_float16')",
    "mixed_bfloat16": "keras.mixed_precision.set_global_policy('mixed_bfloat16')",
}


def run(program, *arguments, **environment):
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    return result.stdout.splitlines(), result.stderr


def check(lines, errors):
    assert [line.split()[:3] for line in lines if line.startswith("detect")] == [["detect", "1", "float32"]], errors[
        -2000:
    ]
    assert [line.split()[1] for line in lines if line.startswith("train")] == ["True"], (lines, errors[-2000:])
    boxes = [list(map(int, line.split()[-4:])) for line in lines if line.startswith(("detect", "export"))]
    np.testing.assert_allclose(boxes, [[178, 57, 273, 177]] * 2, atol=6)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_by_call(setting, sample_photo, tmp_path):
    check(*run(PROGRAM.format(setting=setting), sample_photo, tmp_path))


def test_channels_first_in_the_settings_file(sample_photo, tmp_path):
    settings = {"floatx": "float32", "backend": "tensorflow", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    check(*run(PROGRAM.format(setting=""), sample_photo, tmp_path, KERAS_HOME=str(tmp_path)))


@pytest.mark.parametrize("module", ["retinaface_tf.detector", "retinaface_tf.layers"])
def test_another_backend_is_named_in_one_line(module, tmp_path):
    _, errors = run(f"import {module}", KERAS_BACKEND="jax")
    assert errors.splitlines()[-1] == (
        "ImportError: RetinaFace needs Keras' TensorFlow backend, and the environment variable KERAS_BACKEND says "
        "'jax': set KERAS_BACKEND=tensorflow"
    )
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    own = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    result = subprocess.run(
        [sys.executable, "-c", "from retinaface_tf import RetinaFace"],
        capture_output=True,
        text=True,
        env={**own, "KERAS_HOME": str(tmp_path)},
    )
    assert f"`backend` in {tmp_path / 'keras.json'} says 'torch'" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ([], "expected an object with the settings of Keras. Received: []"),
        ({"floatx": "bfloat16"}, "`floatx` must be 'float32' or 'float16' or 'float64'. Received: 'bfloat16'"),
        ({"epsilon": "x"}, "`epsilon` must be a number such as 1e-07. Received: 'x'"),
        ({"image_data_format": "x"}, "`image_data_format` must be 'channels_last' or 'channels_first'. Received: 'x'"),
    ],
)
def test_settings_with_which_tensorflow_does_not_start_are_one_line(settings, line, tmp_path, sample_photo):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    command = "import sys; from retinaface_tf.cli.main import main; sys.exit(main(sys.argv[1:]))"
    _, errors = run(command, "detect", sample_photo, "--runtime", "keras", KERAS_HOME=str(tmp_path))
    assert errors == f"retinaface-tf: {tmp_path / 'keras.json'}: {line}\n"
    _, errors = run("from retinaface_tf import RetinaFace", KERAS_HOME=str(tmp_path))
    assert errors.splitlines()[-1] == f"ImportError: {tmp_path / 'keras.json'}: {line}"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "import keras; keras.config.set_dtype_policy('int8_from_float32')",
            "`dtype` 'int8_from_float32' quantizes la",
        ),
        ("import keras; keras.config.set_dtype_policy('float8_from_float32')", "`dtype` 'float8_from_float32' quantiz"),
        ("import tensorflow as tf; tf.compat.v1.disable_eager_execution()", "RetinaFace needs TensorFlow 2: remove tf"),
        ("import tensorflow as tf; tf.compat.v1.disable_v2_behavior()", "RetinaFace needs TensorFlow 2: remove tf"),
    ],
)
def test_a_setting_that_no_network_can_be_built_with_is_one_line(setting, line):
    _, errors = run(f"{setting}\nfrom retinaface_tf import RetinaFace\nRetinaFace.from_preset('mobilenet025_wider')")
    assert errors.splitlines()[-1].partition(": ")[2].startswith(line)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("call", ["detect", "call", "fit", "predict", "another", "export"])
def test_a_forked_child_raises_at_once(bundled_model, call, tmp_path):
    """Without, it would wait for TensorFlow's threads, which the child does not have."""
    context = multiprocessing.get_context("fork")
    image = np.zeros((64, 64, 3), np.uint8)
    calls = {
        "detect": lambda: bundled_model.detect(image),
        "call": lambda: bundled_model(image[None]),
        "fit": lambda: bundled_model.fit(image[None], {}),
        "predict": lambda: bundled_model.predict(image[None]),
        "another": lambda: RetinaFace(num_filters=8),
        "export": lambda: bundled_model.export(tmp_path / "model"),
    }

    def work(connection):
        try:
            calls[call]()
            connection.send("no error")
        except RuntimeError as error:
            connection.send(str(error))

    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(theirs,))
    child.start()
    try:
        assert ours.poll(120), "it hangs"
        assert ours.recv().startswith("TensorFlow hangs in a process that was forked after TensorFlow had started.")
    finally:
        child.kill()
        child.join()
