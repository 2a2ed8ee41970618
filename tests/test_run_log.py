"""What a run tells: W&B behind its extra, pictures that show what the model finds."""

import sys
import types

import numpy as np
import pytest

from retinaface_tf.training.callbacks import LogImages, PeriodicEval, ProgressBar, WeightsAndBiases
from retinaface_tf.training.checkpoint import TrainState


def test_weights_and_biases_gets_the_rows_in_one_run_however_often_restarted(monkeypatch, tmp_path):
    calls = []
    run = types.SimpleNamespace(log=lambda values: calls.append(values))
    stub = types.SimpleNamespace(init=lambda **options: (calls.append(options), run)[1])
    monkeypatch.setitem(sys.modules, "wandb", stub)
    for _ in range(2):
        callback = WeightsAndBiases(tmp_path / "first", "faces", {"epochs": 2})
        callback.on_epoch_end(0, {"loss": np.float32(1.5)})
    assert calls[1] == calls[3] == {"loss": 1.5, "epoch": 1}
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


@pytest.mark.parametrize(
    ("scores", "patience", "stops", "best"),
    [([0.5, 0.4, 0.3, 0.2], 2, 3, 1), ([0.1, 0.2, 0.15, 0.3, 0.2, 0.1], 2, 6, 4), ([0.4, 0.3], None, None, 1)],
)
def test_early_stopping_by_validation(scores, patience, stops, best):
    model, given = types.SimpleNamespace(optimizer=None, stop_training=False), iter(scores)
    callback = PeriodicEval(lambda _: {"ap": next(given)}, 1, "ap", -1.0, lambda _: None, patience=patience)
    callback.set_model(model)
    for epoch in range(len(scores)):
        callback.on_epoch_end(epoch, {})
        if model.stop_training:
            break
    assert (epoch + 1 if model.stop_training else None) == stops
    assert callback.best_epoch == best


def test_the_bar_fits_and_begins_with_the_loss(monkeypatch):
    """On a terminal of any width: at most 100 columns, loss first, whole numbers for what is counted."""
    import io

    class Terminal(io.StringIO):
        isatty = staticmethod(lambda: True)

    for width in (60, 240):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", str(width))
        state = TrainState(3)
        bar = ProgressBar(state, 2)
        bar.set_model(types.SimpleNamespace(loss_names=("face", "box", "landmark")))
        logs = {"face": 3.21, "box": 2.0, "landmark": 123456.7, "loss": 9.87, "faces": 12345.0, "skipped": 2.0}
        bar.on_epoch_begin(0)
        for step in range(3):
            bar.on_train_batch_end(step, logs)
            bar._bar.refresh()
            state.step += 1
        bar.on_epoch_end(0, {**logs, "val_ap_all": 0.5})
        text = terminal.getvalue()
        shown = [part for part in text.replace("\n", "\r").split("\r") if part.startswith("epoch 1/2 ")]
        assert shown and max(map(len, shown)) <= min(width, 100)
        assert "building the training step" in text
        last = next(line for line in text.splitlines() if "epoch 1/2: " in line)
        assert (
            "epoch 1/2: loss 9.87, face 3.21, box 2, landmark 1.23e+05, 2 photos left out, val_ap_all 0.500, " in last
        )
        assert "12,345 faces in 0 s" in last
