"""What a run tells: W&B behind its extra, pictures that show what the model finds."""

import sys
import types

import numpy as np
import pytest

from retinaface_tf.training.callbacks import LogImages, PeriodicEval, WeightsAndBiases
from retinaface_tf.training.checkpoint import TrainState


def test_weights_and_biases_gets_the_rows_in_one_run_however_often_restarted(monkeypatch, tmp_path):
    calls = []
    run = types.SimpleNamespace(log=lambda values: calls.append(values))
    stub = types.SimpleNamespace(init=lambda **options: (calls.append(options), run)[1])
    monkeypatch.setitem(sys.modules, "wandb", stub)
    for _ in range(2):
        callback = WeightsAndBiases(tmp_path / "first", "faces", {"epochs": 2})
        callback.on_epoch_end(0, {"loss": np.float32(1.5)})
    assert calls[1] == calls[3] == {"loss": 1.5, "epoch": 0}
    assert calls[0] == calls[2]
    assert calls[0]["project"] == "faces" and calls[0]["name"] == "first" and calls[0]["resume"] == "allow"
    WeightsAndBiases(tmp_path / "other" / "first", "faces", {"epochs": 2})
    assert calls[-1]["name"] == "first" and calls[-1]["id"] != calls[0]["id"]


def test_weights_and_biases_without_a_login_is_one_line(monkeypatch, tmp_path):
    def init(**_):
        raise RuntimeError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Error=RuntimeError))
    with pytest.raises(OSError, match=r"^--wandb faces: no API key$"):
        WeightsAndBiases(tmp_path, "faces", {})


def test_without_wandb_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'retinaface-tf\[wandb\]'"):
        WeightsAndBiases(tmp_path, "faces", {})


def test_pictures_of_what_is_found_go_to_tensorboard(bundled_model, sample_photo, tmp_path):
    import keras
    import tensorflow as tf

    from retinaface_tf.image.loading import load_image

    class Model:
        optimizer = keras.optimizers.SGD()
        detect = staticmethod(bundled_model.detect)

    writer = tf.summary.create_file_writer(str(tmp_path))
    photo = load_image(sample_photo)
    pictures = LogImages([photo, np.zeros((900, 1500, 3), np.uint8)], writer, 2, TrainState(3, step=6))
    pictures.set_model(Model())
    pictures.on_epoch_end(0)
    pictures.on_epoch_end(1)
    (file,) = tmp_path.glob("events*")
    events = [event for event in tf.compat.v1.train.summary_iterator(str(file)) if event.summary.value]
    assert [(event.step, event.summary.value[0].tag) for event in events] == [(6, "faces/0"), (6, "faces/1")]
    width, height, png = events[0].summary.value[0].tensor.string_val[:3]
    assert (int(width), int(height)) == (512, 512)
    shown = tf.io.decode_png(png).numpy()
    changed = (shown != photo).any(axis=-1)
    assert changed[40:190, 160:290].sum() > 200  # a box around the face
    assert changed[:, 320:].sum() == 0
    assert (int(events[1].summary.value[0].tensor.string_val[0])) == 640


def test_validation_comes_each_so_many_epochs_and_after_the_last():
    class Model:
        optimizer = None

    for epochs, expected in ((5, [1, 3, 4]), (4, [1, 3]), (1, [0])):
        seen = []
        callback = PeriodicEval(lambda _: {"ap": 0.5}, 2, "ap", 0.0, lambda _: None, epochs=epochs)
        callback.set_model(Model())
        for epoch in range(epochs):
            logs = {}
            callback.on_epoch_end(epoch, logs)
            seen += [epoch] if "ap" in logs else []
        assert seen == expected
