"""A training run as its user meets it: batch normalization, validation, summary, plots, dry run."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.cli.main import main
from retinaface_tf.data.example import read_shards
from retinaface_tf.data.shards import ConvertOptions, write_shards
from retinaface_tf.training.config import TrainConfig, override
from retinaface_tf.training.validation import Validation

FACE = np.array([178, 57, 273, 177])  # of the bundled photo
SIZES = (0.12, 0.16, 0.2, 0.25, 0.33, 0.5)  # of the photos on the wall below
SMALL = {"data.image_size": 128, "data.shuffle_buffer": 4, "schedule.kind": "constant", "validate_every": 1}


@pytest.fixture(scope="module")
def wall(tmp_path_factory, sample_photo):
    """Folder with four photos of walls that the bundled photo hangs on in six sizes, `faces.csv` and shards of them."""
    folder = tmp_path_factory.mktemp("wall")
    photo = Image.open(sample_photo).convert("RGB")
    random, parts = np.random.default_rng(0), []
    (folder / "photos").mkdir()
    for number in range(4):
        canvas = Image.fromarray(random.integers(60, 200, (320, 800, 3)).astype("uint8"))
        boxes, x = [], 0
        for scale in random.permutation(SIZES):
            side = round(512 * scale)
            top = int(random.integers(0, 320 - side))
            canvas.paste(photo.resize((side, side)), (x, top))
            boxes.append(FACE * scale + [x, top, x, top])
            x += side
        canvas.save(folder / "photos" / f"{number}.png")
        parts.append(annotate_photo(f"{number}.png", boxes, size=(800, 320)))
    annotations = join(parts)
    with (folder / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "x1", "y1", "x2", "y2"])
        writer.writerows(
            [annotations.files[i], *box] for i, box in zip(annotations.image, annotations.boxes, strict=True)
        )
    write_shards(annotations, folder / "photos", folder / "shards", ConvertOptions(shards=1), source={"kind": "test"})
    return folder


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def test_shards_are_annotations(wall):
    annotations, photos = read_shards([wall / "shards"])
    assert sorted(photos) == sorted(annotations.names) == ["0", "1", "2", "3"]
    with (wall / "faces.csv").open() as file:
        labels = [[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in csv.DictReader(file)]
    ours = annotations.boxes[np.lexsort(annotations.boxes.T)]
    np.testing.assert_allclose(ours, np.array(labels)[np.lexsort(np.array(labels).T)], atol=0.01)
    both = Validation.of_shards([wall / "shards"]), Validation.open(wall / "faces.csv", wall / "photos")
    assert [one.monitor for one in both] == ["val_ap_all"] * 2
    for name in photos:
        np.testing.assert_array_equal(both[0].read(name), both[1].read(name))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 16])
def test_ten_steps_at_rate_0_leave_ap_where_it_was(wall, tmp_path, batch_size):
    from retinaface_tf.training.trainer import train

    changes = {"epochs": 1, "steps_per_epoch": 10, "data.batch_size": batch_size, "schedule.learning_rate": 1e-12}
    config = override(TrainConfig(preset="mobilenet025", weights="mobilenet025_wider"), {**SMALL, **changes})
    validation = (wall / "faces.csv", wall / "photos")
    train(config, [wall / "shards"], tmp_path / "run", validation=validation, verbose=0, plots=batch_size == 2)
    start, end = rows(tmp_path / "run" / "log.csv")
    assert (start["epoch"], start["step"], end["epoch"], end["step"]) == (0, 0, 1, 10)
    assert 0.3 < start["val_ap_all"] < 1
    assert end["val_ap_all"] == pytest.approx(start["val_ap_all"], abs=0.02)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["start"] == {"epoch": 0, "val_ap_all": start["val_ap_all"]}
    assert summary["best"] == {"epoch": 1, "val_ap_all": end["val_ap_all"]}
    # What is saved is what was validated.
    from retinaface_tf import RetinaFace

    again = Validation.open(*validation)(RetinaFace.from_preset(tmp_path / "run" / "model.keras"))
    assert again["val_ap_all"] == pytest.approx(end["val_ap_all"], abs=1e-4)
    if batch_size == 2:
        names = ("losses", "learning_rate", "ap", "precision_recall", "validation")
        for name in names:
            with Image.open(tmp_path / "run" / f"{name}.png") as picture:
                assert min(picture.size) > 200 and len(set(picture.convert("L").resize((50, 50)).tobytes())) > 3


def test_a_summary_names_what_comes_next(tmp_path):
    from retinaface_tf.training.summary import describe, format_seconds, summarize

    run = tmp_path / "my run"
    run.mkdir()
    (run / "best.keras").touch()
    (run / "log.csv").write_text(
        "epoch,step,val_ap_all,loss,seconds\n0,0,0.9,,\n1,5,0.8,3,60\n2,10,0.875,2,90\n3,15,,1,3450\n"
    )
    summary = summarize(run, "val_ap_all", run / "model.keras", run / "best.keras")
    assert (summary["epochs"], summary["seconds"], summary["best"]["epoch"]) == (3, 3600, 2)
    text = describe(summary)
    assert "trained for 3 epochs in 60 min" in text
    assert "best epoch: 2, val_ap_all 0.875, before training 0.900" in text
    assert "no epoch was better than before training" in text
    assert f"retinaface-tf detect --model '{run / 'best.keras'}' photo.jpg" in text  # as a shell takes it
    for command in ("evaluate photos", "export tflite"):
        assert f"retinaface-tf {command} --model '{run / 'best.keras'}'" in text
    assert [format_seconds(s) for s in (42, 119.4, 150, 7199, 11100)] == [
        "42 s",
        "119 s",
        "2 min",
        "2 h 0 min",
        "3 h 5 min",
    ]


@pytest.mark.slow
def test_a_dry_run_measures_and_writes_nothing(wall, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = f"train --preset mobilenet025_wider --data {wall / 'shards'} --validation {wall / 'shards'} --dry-run"
    words += " --epochs 7 --batch-size 2 --image-size 64 --json -"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["photos"], found["faces"], found["epochs"], found["steps_per_epoch"]) == (4, 24, 7, 2)
    assert 0 < found["step_seconds"] < found["first_step_seconds"] < found["total_seconds"]
    least = found["first_step_seconds"] + 14 * found["step_seconds"] + found["validation_seconds"]
    assert found["total_seconds"] == pytest.approx(least, abs=0.2)
    assert found["peak_memory_mb"] is None or 100 < found["peak_memory_mb"] < 100_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image-size 333", "`image_size` must be a multiple of 8, the finest stride: take 328 or 336"),
        ("--patience 3", "--patience needs validation photos"),
        ("--validation nowhere", "nowhere"),
        ("--validation {shards} --validation-images . --validation-labels faces.csv", "not both"),
    ],
)
def test_options_that_can_not_be(wall, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    words = words.format(shards=wall / "shards").split()
    assert main(["train", "--preset", "mobilenet025", "--data", str(wall / "shards"), "--output", "run", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "run").exists()
