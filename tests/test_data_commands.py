"""The commands `convert` and `inspect`, as typed."""

import argparse
import json
import shutil

import pytest
import wider_tree
from PIL import Image

from retinaface_tf.cli import convert_custom, convert_widerface, inspect
from retinaface_tf.data.manifest import read_manifest


def call(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def wider(tmp_path):
    wider_tree.make_photos(tmp_path / "photos")
    wider_tree.write_label(tmp_path / "label.txt")
    return tmp_path


def convert(folder, *more):
    words = ["--images", folder / "photos", "--annotations", folder / "label.txt", "--output", folder / "shards"]
    return call(convert_widerface, *words, "--workers", 1, *more)


def test_widerface_to_shards_to_statistics(wider, capsys):
    assert convert(wider) == 0
    out, err = capsys.readouterr()
    assert out.startswith("4 photos with 6 faces, 1 of them with landmarks, in 1 shard (") and "photo/s" in err
    manifest = read_manifest(wider / "shards")
    assert manifest["source"]["kind"] == "widerface" and len(manifest["source"]["annotations_sha256"]) == 64
    sheet = wider / "sheet.png"
    assert call(inspect, wider / "shards", "--verify", "--contact-sheet", sheet) == 0
    out, err = capsys.readouterr()
    assert out.startswith("4 photos, 6 faces, 1 of them with landmarks") and f"written: {sheet}" in out
    assert Image.open(sheet).width > 300
    assert call(inspect, wider / "shards", "--json", "--quiet") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["faces"]["count"] == 6 and err == ""


def test_the_sheet_shows_photos_before_and_after(wider, capsys):
    convert(wider, "--quiet")
    sheet = ["--quiet", "--contact-sheet", wider / "sheet.png", "--photos", 2]
    words = [*sheet, "--image-size", 64, "--augmented", "rotation=10", "crop_sides=[1.0, 2.0]", "reduced_decode=false"]
    assert call(inspect, wider / "shards", *words) == 0
    assert Image.open(wider / "sheet.png").width > 4 * 300
    for words, message in [
        (["--augmented", "rotate=10"], "`rotate` is not an option of `Augmentation`. Expected one of .*'rotation'"),
        (["--augmented", "rotation"], "--augmented takes NAME=VALUE"),
        (["--augmented", "rotation=ten"], "rotation takes a number"),
        (["--augmented", "rotation=-1"], "`rotation` must be at least 0"),
        (["--augmented", "rotation=[1]"], "rotation"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            call(inspect, wider / "shards", *sheet, *words)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="--augmented needs --contact-sheet"):
        call(inspect, wider / "shards", "--augmented")


def test_problems_are_printed(wider, capsys):
    (wider / "photos/0--Parade/0_Parade_a_1.jpg").unlink()
    faces = {**wider_tree.FACES, "0--Parade/0_Parade_b_2.jpg": [((5, 6, 0, 24), None)]}
    wider_tree.write_label(wider / "label.txt", faces)
    assert convert(wider, "--quiet") == 0
    out, err = capsys.readouterr()
    assert "1 x missing_photo: photo left out\n" in out and "0_Parade_a_1.jpg: no such file" in out
    assert "1 x no_area: face left out\n" in out and "x 5 y 6 w 0 h 24" in out
    assert err == ""
    call(inspect, wider / "shards", "--quiet")
    assert "missing_photo" in capsys.readouterr().out
    assert convert(wider, "--quiet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["problems"]["no_area"] == 1
    shutil.rmtree(wider / "shards")
    with pytest.raises(ValueError, match="--strict stops"):
        convert(wider, "--quiet", "--strict")


def test_custom_to_shards(wider, capsys):
    (wider / "faces.csv").write_text("file,x1,y1,x2,y2\n0--Parade/0_Parade_a_1.jpg,20,30,60,80\n")
    words = ["--images", wider / "photos", "--annotations", wider / "faces.csv", "--output", wider / "shards"]
    assert call(convert_custom, *words, "--workers", 1) == 0
    assert capsys.readouterr().out.startswith("1 photo with 1 face, 0 of them with landmarks")
    assert read_manifest(wider / "shards")["source"]["kind"] == "csv"


def test_unusable_words_are_one_clear_line(wider):
    for words, message in [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--shards", "0"], "`shards` must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(wider, "--quiet", *words)
    assert not (wider / "shards").exists()
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        call(inspect, wider)
    convert(wider, "--quiet")
    for words, message in [
        (["--contact-sheet", "a.pdf"], "must end in"),
        (["--photos", "0"], "--photos must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(inspect, wider / "shards", *words)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        call(convert_custom, "--images", wider / "no", "--annotations", wider, "--output", wider / "x")


@wider_tree.needs_data("wider_val_samples", "wider_ground_truth")
def test_real_photos_with_the_official_labels(tmp_path, capsys):
    """Ten photos of the validation set, 507 faces; the boxes fit the sizes that the photos have."""
    from retinaface_tf.annotations.widerface import read_widerface

    annotations = wider_tree.DATA / "wider_ground_truth" / "wider_face_val.mat"
    places = {file.split("/")[1]: file for file in read_widerface(annotations).files}
    for photo in (wider_tree.DATA / "wider_val_samples").glob("*.jpg"):
        path = tmp_path / "photos" / places[photo.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, path)
    words = ["--images", tmp_path / "photos", "--annotations", annotations, "--output", tmp_path / "shards"]
    call(convert_widerface, *words, "--workers", 1, "--shards", 2, "--quiet")
    counts = read_manifest(tmp_path / "shards")["counts"]
    problems = {kind: number for kind, number in counts["problems"].items() if number}
    assert (counts["photos"], counts["faces"], problems) == (10, 507, {"missing_photo": 3216})
