"""The parts that keep a run safe and decide what learns: tables, checkpoints, EMA weights, freezing, calibration."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_training import small_model, step

from retinaface_tf.training.callbacks import CsvLog
from retinaface_tf.training.checkpoint import (
    Checkpoints,
    Interrupted,
    NonFiniteError,
    SafeProgress,
    StepCounter,
    TrainState,
    latest_checkpoint,
)
from retinaface_tf.training.optimizer import ema_pairs, ema_weights


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- CsvLog


def test_a_table_grows_and_goes_on_where_a_checkpoint_left_it(tmp_path):
    path = tmp_path / "log.csv"
    table = CsvLog(path, "step", before=0)
    for number in range(5):
        table.add({"step": number, "loss": np.float32(1 / (number + 3))})
    assert [row["step"] for row in read(path)] == list("01234")
    assert read(path)[0]["loss"] == "0.3333333"
    again = CsvLog(path, "step", before=3)
    assert [row["step"] for row in read(path)] == list("012")
    again.add({"step": 3, "loss": 0.5})
    assert [(row["step"], row["loss"]) for row in read(path)][2:] == [("2", "0.2"), ("3", "0.5")]


@pytest.mark.parametrize("cut", [1, 4, 9, 12])
def test_half_a_line_is_dropped(tmp_path, cut):
    path = tmp_path / "log.csv"
    table = CsvLog(path, "step", before=0)
    for number in range(3):
        table.add({"step": 10 + number, "loss": 0.25, "rate": 0.125})
    whole = path.read_text()
    path.write_text(whole[:-cut])  # a cut of 1 leaves the numbers, a cut of 4 a wrong one
    again = CsvLog(path, "step", before=100)
    assert [row["step"] for row in again.rows] == ["10", "11"]
    again.add({"step": 12, "loss": 0.25, "rate": 0.125})
    assert path.read_text() == whole


def test_columns_that_come_and_go_lose_no_row(tmp_path):
    """Scores come with every other epoch only."""
    path = tmp_path / "log.csv"
    table = CsvLog(path, "epoch", before=0)
    for epoch in range(7):
        table.add({"epoch": epoch, "loss": 1.0} | ({"ap": 0.5} if epoch % 2 else {}))
    expected = [(str(epoch), "0.5" if epoch % 2 else "") for epoch in range(7)]
    assert [(row["epoch"], row["ap"]) for row in read(path)] == expected
    again = CsvLog(path, "epoch", before=7)
    assert [(row["epoch"], row["ap"]) for row in again.rows] == expected
    again.add({"epoch": 7, "loss": 1.0})
    again.add({"epoch": 8, "loss": 1.0, "new": 3})
    assert [row["epoch"] for row in CsvLog(path, "epoch", before=9).rows] == list("012345678")


@pytest.mark.parametrize("content", ["", "\n", "something,else\n1,2\n", "step,loss\nx,1\n"])
def test_a_file_that_is_no_such_table_has_no_rows(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_text(content)
    table = CsvLog(path, "step", before=5)
    table.add({"step": 1, "loss": 2.0})
    assert read(path) == [{"step": "1", "loss": "2"}]


@pytest.fixture(scope="module")
def trained():
    """A model after two steps. Give back what you change."""
    model = small_model()
    step(model, 2)
    return model


def state(model):
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables, *metrics)]


def same_bits(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- Checkpoints


@pytest.mark.slow
def test_checkpoints_hold_all(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path, trained)
    assert checkpoints.restore() == 0
    assert checkpoints.latest is latest_checkpoint(tmp_path) is None
    checkpoints.save(7)
    other = small_model(seed=1)
    again = Checkpoints(tmp_path, other)
    assert not same_bits(state(trained), state(other))
    assert again.restore() == 7
    assert same_bits(state(trained), state(other))
    assert any(np.any(v.numpy()) for metric in other.metrics for v in metric.variables)
    assert latest_checkpoint(tmp_path) == again.latest
    for number in (8, 9, 10):
        checkpoints.save(number)
    assert sorted(path.stem for path in tmp_path.glob("*.index")) == ["step-10", "step-9"]


def test_a_worker_that_only_reads_saves_into_its_own_folder(trained, tmp_path):
    Checkpoints(tmp_path / "a", trained).save(2)
    reader = Checkpoints(tmp_path / "b", trained, read_from=tmp_path / "a")
    assert reader.restore() == 2
    reader.save(3)
    assert latest_checkpoint(tmp_path / "a").endswith("step-2")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_kept(trained, tmp_path, wrong):
    checkpoints = Checkpoints(tmp_path, trained)
    kernel = trained.trainable_variables[5]
    good = kernel.numpy()
    with pytest.raises(NonFiniteError, match=r"by step 1; there is no checkpoint yet$"):
        kernel.assign(np.where(np.arange(good.size).reshape(good.shape) == 3, wrong, good))
        checkpoints.save(1)
    kernel.assign(good)
    checkpoints.save(2)
    kernel.assign(np.full_like(good, wrong))
    with pytest.raises(NonFiniteError, match=r"by step 3; the last good weights are kept in .*step-2$"):
        checkpoints.save(3)
    assert checkpoints.restore() == 2
    np.testing.assert_array_equal(kernel, good)


def test_a_foreign_checkpoint_is_one_clear_line(trained, tmp_path):
    tf.train.CheckpointManager(tf.train.Checkpoint(a=tf.Variable(1.0)), str(tmp_path), 2, checkpoint_name="step").save(
        4
    )
    before = state(trained)
    with pytest.raises(OSError, match="step-4: not a checkpoint of this model and optimizer") as error:
        Checkpoints(tmp_path, trained).restore()
    assert "\n" not in str(error.value)
    for variable, value in zip((*trained.variables, *trained.optimizer.variables), before, strict=False):
        variable.assign(value)


def test_a_damaged_checkpoint_is_one_clear_line(trained, tmp_path):
    checkpoints = Checkpoints(tmp_path, trained)
    checkpoints.save(4)
    (data,) = tmp_path.glob("step-4.data*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    before = state(trained)
    with pytest.raises(OSError, match="step-4: not a checkpoint") as error:
        Checkpoints(tmp_path, trained).restore()
    assert "\n" not in str(error.value)
    for variable, value in zip((*trained.variables, *trained.optimizer.variables), before, strict=False):
        variable.assign(value)


FULL_DISK = """
import resource, sys
from pathlib import Path
import test_training_parts as t
model = t.small_model()
checkpoints = t.Checkpoints(sys.argv[1], model)
checkpoints.save(1)
before = sorted(path.name for path in Path(sys.argv[1]).iterdir())
good = t.state(model)
model.trainable_variables[0].assign(model.trainable_variables[0] + 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    checkpoints.save(2)
except OSError as error:
    print(str(error).replace(chr(10), "NEWLINE"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(sorted(path.name for path in Path(sys.argv[1]).iterdir()) == before)
print(t.Checkpoints(sys.argv[1], model).restore(), t.same_bits(t.state(model), good))
checkpoints.save(3)
print(checkpoints.latest)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "c"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    message, clean, restored, latest = result.stdout.splitlines()[-4:]
    assert "the checkpoint of step 2 can't be written" in message
    assert message.endswith("c/step-1")
    assert "NEWLINE" not in message
    assert clean == "True"
    assert restored == "1 True"
    assert latest.endswith("step-3")


def test_what_a_kill_left_half_written_is_removed(trained, tmp_path):
    Checkpoints(tmp_path, trained).save(1)
    (tmp_path / "step-2_temp").mkdir()
    (tmp_path / "step-2_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, trained)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"checkpoint", "step-1"}
    assert checkpoints.restore() == 1


def test_a_folder_that_can_not_be_is_one_clear_line(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as error:
        Checkpoints(tmp_path / "file" / "checkpoints", trained).save(1)
    assert "\n" not in str(error.value)


# --- Averages


def test_averaged_weights_come_and_go_without_a_bit_changed(trained):
    before = state(trained)
    pairs = ema_pairs(trained.optimizer)
    assert len(pairs) == len(trained.trainable_variables)
    with ema_weights(trained) as model:
        assert model is trained
        for variable, average in pairs:
            np.testing.assert_array_equal(variable, average)
        assert not same_bits(state(trained), before)
    assert same_bits(state(trained), before)
    with pytest.raises(RuntimeError), ema_weights(trained):
        raise RuntimeError
    assert same_bits(state(trained), before)


def test_before_the_first_step_the_average_is_the_weights():
    model = small_model()
    model.optimizer.build(model.trainable_variables)
    before = state(model)
    with ema_weights(model):
        assert same_bits(state(model), before)


def test_a_blend_is_on_the_line_between_start_and_average(trained):
    before = state(trained)
    start = [np.full_like(value, 2.0) for value in trained.get_weights()]
    with ema_weights(trained):
        average = [value.copy() for value in trained.get_weights()]
    with ema_weights(trained, start, 0.25) as model:
        for blended, new in zip(model.get_weights(), average, strict=True):
            np.testing.assert_allclose(blended, 0.25 * new + 1.5, rtol=1e-6)
    assert same_bits(state(trained), before)


# --- The stop that was asked for


class Saved:
    def __init__(self):
        self.steps = []

    def save(self, number):
        self.steps.append(number)


def test_an_epoch_of_which_no_photo_can_be_read_ends_the_run():
    class Checkpoints:
        describe_kept = staticmethod(lambda: "there is no checkpoint yet")

    counter = StepCounter(TrainState(3, step=3), Checkpoints(), batch_size=2)
    counter.on_epoch_end(0, {"skipped": 5.0})
    with pytest.raises(ValueError, match="none of the photos of epoch 1 can be read"):
        counter.on_epoch_end(0, {"skipped": 6.0})


def test_a_signal_in_the_last_step_of_an_epoch_lets_the_epoch_be_written():
    position, saved = TrainState(10, step=4), Saved()
    safe = SafeProgress(position, saved, every=4)
    safe.on_train_batch_end(0)
    safe._note(15, None)
    with pytest.raises(Interrupted):
        safe.on_train_batch_end(0)
    assert saved.steps == [4, 4]
    position.step = 10
    safe.on_train_batch_end(9)  # the callbacks that write the epoch's rows come first
    with pytest.raises(Interrupted, match="SIGTERM"):
        safe.on_epoch_end(0)
    assert saved.steps == [4, 4, 10]
