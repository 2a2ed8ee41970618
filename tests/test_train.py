"""A training run as its user meets it: what it writes, how it ends, and that after a kill it goes on as if unharmed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from wider_tree import FACES, POINTS, make_photos, write_label

from retinaface_tf.annotations.widerface import read_widerface
from retinaface_tf.cli.main import main
from retinaface_tf.data.shards import ConvertOptions, write_shards
from retinaface_tf.training.config import TrainConfig, override

pytestmark = pytest.mark.slow  # trains

NAMES = [f"0--Parade/0_Parade_x_{number}.jpg" for number in range(6)]
SMALL = {
    "steps_per_epoch": 3,
    "epochs": 2,
    "log_steps": 1,
    "validate_every": 1,
    "data.batch_size": 2,
    "data.image_size": 64,
    "data.shuffle_buffer": 8,
    "schedule.decay_epochs": [],
}
# The body of the smallest preset, and as little as can be after it: most of a test's time is in tracing the graph.
PRESET = {"architecture": {"backbone": "mobilenet_v1_025", "anchors": {"P5": [24, 48]}, "num_filters": 8}}
WORDS = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Folder of photos, `label.txt` and shards: six photos, each with a labeled face and a small one."""
    folder = tmp_path_factory.mktemp("tree")
    faces = {name: [((20, 30, 40, 50), POINTS), ((80, 10, 14, 16), None)] for name in NAMES}
    make_photos(folder / "images", [*NAMES, *FACES])
    (folder / "preset").mkdir()
    (folder / "preset" / "preset.json").write_text(json.dumps(PRESET))
    label = write_label(folder / "label.txt", faces)
    write_shards(
        read_widerface(label), folder / "images", folder / "shards", ConvertOptions(shards=2), source={"kind": "test"}
    )
    return folder


@pytest.fixture(scope="module")
def shards(tree):
    return tree / "shards"


def command(shards, output, *words):
    return [
        *(sys.executable, "-m", "retinaface_tf", "train", "--preset", str(shards.parent / "preset"), "--quiet"),
        *("--data", str(shards), "--output", str(output), "--set", *WORDS, *words),
    ]


def start(shards, output, *words):
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        command(shards, output, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process):
    out, err = process.communicate(timeout=1200)
    return process.returncode, out, err


def wait_for(process, done, seconds=1200):
    """Poll until `done()` holds while the process runs; fails with its output if it ends before."""
    end = time.monotonic() + seconds
    while not done():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the run ended early: {process.communicate()}")
        time.sleep(0.02)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def weights(path):
    from retinaface_tf import RetinaFace

    return RetinaFace.from_preset(str(path)).get_weights()


class Scores:
    """A validation with given scores."""

    monitor, missing, matching, photos = "val_ap", 0, None, ()

    def __init__(self, scores):
        self.scores = iter(scores)

    def __call__(self, model):
        return {"val_ap": next(self.scores)}


def require_same_weights(path, other, atol):
    """Two saved models agree; measured statistics, which add up all differences, within ten times as much."""
    from retinaface_tf import RetinaFace

    ours, theirs = (RetinaFace.from_preset(str(each)) for each in (path, other))
    learned = {variable.path for variable in ours.trainable_variables}
    for one, two in zip(ours.variables, theirs.variables, strict=True):
        margin = atol if one.path in learned else 10 * atol
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=margin, err_msg=one.path)


@pytest.fixture(scope="module")
def finished(tree, shards, tmp_path_factory):
    """A run in this process with all that can be switched on at once, and its folder."""
    from retinaface_tf.training.trainer import train

    output = tmp_path_factory.mktemp("runs") / "all"
    more = {
        "optimizer.average": 0.5,
        "optimizer.accumulate": 2,
        "optimizer.clip_norm": 5.0,
        "schedule.kind": "cosine",
        "dtype": "mixed_bfloat16",
        "steps_per_epoch": 4,
        "validate_every": 3,  # the run has two epochs: it is validated after the last all the same
    }
    config = override(override(TrainConfig(preset=str(tree / "preset")), SMALL), more)
    path = train(config, [shards], output, validation=Scores([0.5, 0.75]), plots=False, verbose=0)
    return path, output


def test_a_run_leaves_a_model_and_its_logs(finished, tree):
    from retinaface_tf import RetinaFace

    path, output = finished
    model = RetinaFace.from_preset(str(path))
    assert model.layers_dtype == "float32"
    assert len(model.detect(tree / "images" / NAMES[0])) >= 0
    epochs = rows(output / "log.csv")
    assert [row["epoch"] for row in epochs] == [0, 1, 2]
    np.testing.assert_array_equal([row["val_ap"] for row in epochs], [0.5, np.nan, 0.75])
    for row in epochs[1:]:
        assert row["loss"] == pytest.approx(row["face"] + row["box"] + row["landmark"], rel=1e-4)
        assert min(row["face"], row["box"], row["landmark"]) > 0
    # Four steps of two photos with at most two faces each, at least one of which is in every crop.
    assert 8 <= epochs[1]["faces"] <= 16
    assert [row["step"] for row in rows(output / "steps.csv")] == list(range(1, 9))
    assert list((output / "tensorboard").glob("events*"))
    assert (output / "best.keras").is_file()
    assert json.loads((output / "config.json").read_text())["config"]["optimizer"]["average"] == 0.5


def test_the_rows_of_steps_are_means_of_their_own_steps(finished):
    _, output = finished
    steps, epochs = rows(output / "steps.csv"), rows(output / "log.csv")
    assert np.mean([row["loss"] for row in steps[:4]]) == pytest.approx(epochs[1]["loss"], rel=1e-4)
    assert np.mean([row["loss"] for row in steps[4:]]) == pytest.approx(epochs[2]["loss"], rel=1e-4)


def test_the_finished_run_has_the_averaged_weights(finished):
    import tensorflow as tf

    path, output = finished
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(output / "checkpoints")))
    named = {name: name for name in reader.get_variable_to_shape_map()}
    average = [n for n in named if "average" in n and "face_head_P5" in n and "kernel" in n]
    assert len(average) == 1
    from retinaface_tf import RetinaFace

    head = RetinaFace.from_preset(str(path)).get_layer("face_head_P5").convolution.kernel.numpy()
    np.testing.assert_array_equal(head, reader.get_tensor(average[0]))
    current = [n for n in named if n.startswith("weights") and "face_head_P5" in n and "kernel" in n]
    assert np.abs(head - reader.get_tensor(current[0])).max() > 0


def test_a_finished_run_is_not_trained_again(finished, shards):
    from retinaface_tf.training.trainer import train

    path, output = finished
    config = json.loads((output / "config.json").read_text())["config"]
    before, log = weights(path), (output / "log.csv").read_text()
    train(override(TrainConfig(), config), [shards], output, verbose=0)
    for ours, theirs in zip(weights(path), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (output / "log.csv").read_text() == log


@pytest.mark.slow
def test_killed_or_stopped_at_any_moment_it_goes_on_as_if_nothing_had_happened(shards, tmp_path):
    words = ("checkpoint_steps=2", "steps_per_epoch=5", "optimizer.average=0.9", "schedule.kind=cosine", "epochs=2")
    words += ("validate_every=9",)  # and pictures, whose graph takes longer than the steps: after the last epoch alone
    whole = start(shards, tmp_path / "whole", *words)
    broken = start(shards, tmp_path / "broken", *words)
    steps = tmp_path / "broken" / "steps.csv"

    def wait_for_step(number):
        wait_for(broken, lambda: steps.is_file() and any(row["step"] >= number for row in safe_rows(steps)))

    wait_for_step(3)  # in the middle of an epoch, a step after a checkpoint
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    assert not (tmp_path / "broken" / "model.keras").exists()

    broken = start(shards, tmp_path / "broken", *words)
    wait_for_step(6)
    broken.send_signal(signal.SIGINT)
    code, _, err = finish(broken)
    if code:  # the signal came before the last step
        assert code == 130, err
        assert "Run the same command again to resume" in err
        stopped = {int(path.stem.split("-")[1]) for path in (tmp_path / "broken" / "checkpoints").glob("step-*.index")}
        assert max(stopped) == rows(steps)[-1]["step"]
        broken = start(shards, tmp_path / "broken", *words)
        code, _, err = finish(broken)
    assert (code, err) == (0, "")
    assert finish(whole)[0] == 0

    first, second = (rows(tmp_path / name / "steps.csv") for name in ("whole", "broken"))
    assert [row["step"] for row in first] == [row["step"] for row in second] == list(range(1, 11))
    for name in ("loss", "face", "box", "landmark", "learning_rate"):
        np.testing.assert_allclose([r[name] for r in second], [r[name] for r in first], rtol=1e-3, err_msg=name)
    epochs = [rows(tmp_path / name / "log.csv") for name in ("whole", "broken")]
    assert [row["faces"] for row in epochs[0]] == [row["faces"] for row in epochs[1]]
    np.testing.assert_allclose([r["loss"] for r in epochs[1]], [r["loss"] for r in epochs[0]], rtol=1e-3)
    require_same_weights(tmp_path / "broken" / "model.keras", tmp_path / "whole" / "model.keras", atol=2e-4)


def safe_rows(path):
    try:
        return rows(path)
    except (ValueError, TypeError):  # half a line, just now
        return []


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_good_weights(shards, tmp_path, capsys):
    import tensorflow as tf

    words = ("schedule.learning_rate=1e25", "schedule.warmup_epochs=1", "checkpoint_steps=1", "epochs=50")
    assert main(command(shards, tmp_path / "run", *words)[3:]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "the last good weights are kept in" in lines[0]
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("weights")]
    assert len(names) > 100
    assert all(np.isfinite(reader.get_tensor(name)).all() for name in names)


def refused(capsys, *words):
    assert main(["train", *map(str, words)]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


def test_what_can_not_be_trained_is_one_clear_line(shards, finished, tmp_path, capsys):
    preset = ("--preset", "mobilenet025")
    assert "must be one of" in refused(capsys, "--preset", "mobilenet25", "--data", shards, "--output", tmp_path)
    line = refused(capsys, *preset, "--data", shards, "--output", tmp_path, "--set", "schedule.learning_rat=1")
    assert "learning_rate" in line
    assert "--data is missing" in refused(capsys, *preset, "--output", tmp_path)
    assert "no manifest.json" in refused(capsys, *preset, "--data", tmp_path, "--output", tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert "can't be written" in refused(capsys, *preset, "--data", shards, "--output", tmp_path / "file")
    line = refused(capsys, *preset, "--data", shards, "--output", finished[1])
    assert "contains results of another run" in line
    line = refused(capsys, *preset, "--data", shards, "--output", tmp_path / "run", "--weights", "missing.keras")
    assert "missing.keras: No such file" in line
    line = refused(capsys, *preset, "--data", shards, "--output", tmp_path / "x", "--validation-images", tmp_path)
    assert "must be given together" in line
    line = refused(capsys, "--preset", "mine.keras", "--data", shards, "--output", tmp_path / "x")
    assert "use --weights for a file" in line


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (["mobilenet025_wider"], "mobilenet025_wider"),
        (["mobilenet025_masked"], "mobilenet025_wider"),  # its recipe names what it starts from
        (["mobilenet025"], None),
        (["mobilenet025_wider", "--from-scratch"], None),
        (["mobilenet025_masked", "--from-scratch"], None),
        (["mobilenet025_wider", "--weights", "mine.keras"], "mine.keras"),
    ],
)
def test_a_preset_with_weights_is_fine_tuned_from_them(words, weights, capsys):
    assert main(["train", "--preset", *words, "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == weights


def test_plain_options_are_fields_of_the_recipe(capsys):
    words = "--epochs 3 --batch-size 4 --image-size 256 --learning-rate 0.002 --seed 7 --patience 2 --set epochs=9"
    assert main(["train", "--preset", "mobilenet025", *words.split(), "--print-config"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["epochs"], config["seed"], config["patience"]) == (3, 7, 2)
    assert (config["data"]["batch_size"], config["data"]["image_size"]) == (4, 256)
    assert config["schedule"]["learning_rate"] == 0.002


def test_validation_that_can_not_work_is_refused_before_the_first_step(tree, shards, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,x1,y1,x2,y2\n{NAMES[0]},,,,\n")
    words = ("--preset", "mobilenet025", "--data", shards, "--output", tmp_path / "run")
    words = (*words, "--validation-images", tree / "images", "--validation-labels", labels)
    assert "no face of the subset 'all' in the 1 validation photos" in refused(capsys, *words)
    labels.write_text("file,x1,y1,x2,y2\nbad.jpg,1,1,9,9\n")
    (tmp_path / "bad.jpg").write_text("no photo")
    words = (*words[:-3], tmp_path, *words[-2:])
    assert "bad.jpg: not a photo that can be read" in refused(capsys, *words)


def test_a_start_that_failed_binds_nobody_and_a_run_is_bound_to_its_data(finished, shards, tmp_path):
    from retinaface_tf.training.trainer import CONFIG_FILE, keep_config

    config = override(TrainConfig(), SMALL)
    keep_config(tmp_path, override(config, {"weights": "missing.keras"}), [shards], "a")
    keep_config(tmp_path, config, [shards], "a")
    (tmp_path / "model.keras").touch()
    keep_config(tmp_path, override(config, {"epochs": 9}), ["moved"], "a")
    before = json.loads((tmp_path / CONFIG_FILE).read_text())
    for other, digest, message in (
        (override(config, {"epochs": 9}), "b", "data_sha256 was 'a', now 'b'"),
        (override(config, {"seed": 1}), "a", "config.seed was 0, now 1"),
    ):
        with pytest.raises(ValueError, match=message):
            keep_config(tmp_path, other, ["moved"], digest)
    assert json.loads((tmp_path / CONFIG_FILE).read_text()) == before
    # A field that came with a later version has its default in the runs of earlier ones.
    del before["config"]["patience"], before["config"]["loss"]["face"]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(before))
    keep_config(tmp_path, override(config, {"epochs": 9}), ["moved"], "a")


def test_augmentation_can_be_switched_off(bundled_model, shards):
    from retinaface_tf.data.manifest import open_shards
    from retinaface_tf.data.pipeline import training_dataset
    from retinaface_tf.training.trainer import batch_options

    config = override(TrainConfig(), {**SMALL, "data.augment.enabled": False, "data.augment.min_face": 30})
    manifest, paths = open_shards(shards)
    dataset = training_dataset(paths, manifest["counts"]["photos"], **batch_options(config, bundled_model, 0))
    _, faces = next(iter(dataset))
    sides = faces["boxes"][..., 2:] - faces["boxes"][..., :2]
    assert sides.shape[1] == 1  # the photos' other face is smaller than 30 px


def test_the_model_of_a_run_holds_no_optimizer(finished):
    import io
    import zipfile

    import h5py

    with zipfile.ZipFile(finished[0]) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as content:
        assert "layers" in content and "optimizer" not in content


def test_not_a_number_is_never_the_best_score():
    from retinaface_tf.training.callbacks import PeriodicEval

    class Model:
        optimizer = None

    scores, saved = iter([float("nan"), 0.5, float("nan"), 0.25, 0.75]), []
    callback = PeriodicEval(
        lambda _: {"ap": next(scores)}, 1, "ap", -float("inf"), lambda _: saved.append(callback.best)
    )
    callback.set_model(Model())
    for epoch in range(5):
        callback.on_epoch_end(epoch, {})
    assert saved == [0.5, 0.75]


def test_weights_of_another_architecture_are_refused():
    from retinaface_tf.training.build import build_model

    with pytest.raises(ValueError, match="another architecture than resnet18_p6: backbone is"):
        build_model(TrainConfig(preset="resnet18_p6", weights="mobilenet025_wider"))


def test_print_config_shows_the_recipe_with_the_changes(capsys):
    assert main(["train", "--preset", "paper_resnet152", "--print-config", "--set", "epochs=3"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["epochs"] == 3
    assert config["first_target"]["negative_iou"] == 0.3
    assert config["schedule"]["decay_epochs"] == [55, 68]


@pytest.mark.parametrize("preset", ["mobilenet025", "resnet50", "paper_resnet152", "resnet18_p6"])
def test_every_recipe_is_a_config_and_says_what_it_costs_and_reaches(preset):
    from retinaface_tf import presets
    from retinaface_tf.training.config import read_recipe

    assert read_recipe(preset).preset == preset
    recipe = presets.load(preset)["recipe"]
    assert all(recipe[key] for key in ("source", "command", "cost", "reaches"))


def test_fine_tuning_starts_from_the_given_weights(bundled_model):
    from retinaface_tf.training.build import build_model

    model = build_model(TrainConfig(preset="mobilenet025", weights="mobilenet025_wider"))
    for ours, theirs in zip(model.get_weights(), bundled_model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
