"""The command as its user meets it: what is printed where, what is written, which exit code."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_tf import presets
from retinaface_tf.cli import main as cli

pytestmark = pytest.mark.usefixtures("one_model")


@pytest.fixture
def photos(tmp_path, sample_photo, monkeypatch):
    """A folder with the bundled photo, a photo without faces, and a broken one; the working directory beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(sample_photo, folder / "a.jpg")
    Image.new("RGB", (64, 48), "green").save(folder / "b.png")
    (folder / "c.jpg").write_bytes(sample_photo.read_bytes()[:5000])
    monkeypatch.chdir(tmp_path)
    return folder


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_to_standard_output_is_all_that_goes_there(capsys, photos):
    code, out, err = run(capsys, "detect", "photos", "--json", "-")
    listed = json.loads(out)
    assert code == 1  # one of them is broken
    assert [one["file"] for one in listed] == ["photos/a.jpg", "photos/b.png", "photos/c.jpg"]
    assert (listed[0]["width"], listed[0]["height"], len(listed[0]["faces"])) == (512, 512, 1)
    assert listed[1]["faces"] == []
    assert listed[2]["error"].startswith("photos/c.jpg: can't be decoded")
    assert "photos/c.jpg: can't be decoded" in err
    assert "Traceback" not in err


def test_pictures_report_and_crops(capsys, photos):
    code, out, _ = run(capsys, "detect", "photos/a.jpg", "photos/b.png", "--output", "out", "--crops")
    assert code == 0
    assert "2 photos, 1 face, 0 failed" in out
    original, drawn = (np.asarray(Image.open(path)).astype(int) for path in ("photos/a.jpg", "out/a.jpg"))
    changed = np.abs(drawn - original).max(axis=-1) > 100
    assert changed[57:178, 178:274].any()
    assert not changed[200:].any()
    assert Image.open("out/crops/a_0.png").size == (112, 112)
    assert len(json.loads(Path("out/detections.json").read_text())) == 2


def test_one_photo_can_be_one_picture(capsys, photos):
    code, out, _ = run(capsys, "detect", "photos/a.jpg", "--output", "made/result.png", "--json", "r.json")
    assert (code, out.splitlines()[-1]) == (0, "1 photo, 1 face, 0 failed; picture made/result.png; r.json")
    assert [path.name for path in Path("made").iterdir()] == ["result.png"]
    assert Image.open("made/result.png").size == (512, 512)
    assert json.loads(Path("r.json").read_text())[0]["picture"] == "made/result.png"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["photos", "--output", "r.png"], "is one picture, but there are 3 photos: give a folder"),
        (["photos/a.jpg", "--output", "r.png", "--crops"], "--crops needs a folder, not one picture"),
        (["photos/a.jpg", "--output", "r.gif"], "pictures are saved as .jpg, .jpeg, .png, .webp"),
        (["photos/a.jpg", "--output", "photos/a.jpg"], "--output would replace photos/a.jpg, which the command reads"),
    ],
)
def test_one_picture_is_of_one_photo(capsys, photos, words, line):
    code, _, err = run(capsys, "detect", *words)
    assert (code, line in err) == (2, True)


def test_the_report_names_what_was_written_and_csv_is_beside_it(capsys, photos):
    words = ["photos/a.jpg", "photos/b.png", "--output", "out", "--crops", "--csv", "out/faces.csv"]
    assert run(capsys, "detect", *words)[0] == 0
    first, second = json.loads(Path("out/detections.json").read_text())
    assert (first["picture"], first["crops"]) == ("out/a.jpg", ["out/crops/a_0.png"])
    assert (second["picture"], second["crops"]) == ("out/b.png", [])
    assert Path("out/faces.csv").is_file() and all(Path(name).is_file() for name in first["crops"])


def test_a_photo_from_standard_input(capsys, photos, monkeypatch):
    monkeypatch.setattr(sys, "stdin", (photos / "a.jpg").open())
    code, out, _ = run(capsys, "detect", "-")
    assert (code, out.splitlines()[0]) == (0, "-: 1 face")


def test_an_empty_name_and_a_pipe_are_one_line_each(capsys, photos):
    assert run(capsys, "detect", "")[0] == 2
    os.mkfifo("pipe")
    code, _, err = run(capsys, "detect", "pipe")
    assert (code, err) == (1, "retinaface-tf: pipe: expected a file, found a named pipe\n")


def test_a_resumed_report_loses_no_photo_of_the_earlier_run(capsys, photos):
    run(capsys, "detect", "photos/a.jpg", "--json", "r.json")
    run(capsys, "detect", "photos/b.png", "--json", "r.json", "--resume")
    assert [one["file"] for one in json.loads(Path("r.json").read_text())] == ["photos/b.png", "photos/a.jpg"]


@pytest.mark.parametrize(
    "content", ["[", "3", '[{"file": 1, "faces": []}]', '[{"file": "a"}]', '[{"file": "a", "faces": null}]', "[" * 9999]
)
def test_what_is_no_report_is_not_resumed(capsys, photos, content):
    Path("r.json").write_text(content)
    code, _, err = run(capsys, "detect", "photos/a.jpg", "--json", "r.json", "--resume")
    assert (code, err.startswith("retinaface-tf: r.json: "), err.count("\n")) == (2, True, 1)
    assert Path("r.json").read_text() == content


def test_a_name_that_steers_a_terminal_is_printed_as_text(capsys, photos):
    shutil.copy("photos/a.jpg", "photos/\x1b[2J\n.jpg")
    _, out, _ = run(capsys, "detect", "photos/\x1b[2J\n.jpg")
    assert out.splitlines()[0] == "photos/\\x1b[2J\\n.jpg: 1 face"


def test_a_photo_on_which_the_network_fails_costs_no_other(capsys, photos, bundled_model, monkeypatch):
    detect = bundled_model.detect

    def fail_on_green(self, images, **options):
        if any(image.shape == (48, 64, 3) for image in images):
            raise RuntimeError("OOM when allocating tensor\nmore lines")
        return detect(images, **options)

    monkeypatch.setattr("retinaface_tf.inference.predictor.Detector.detect", fail_on_green)
    code, out, err = run(capsys, "detect", "photos/b.png", "photos/a.jpg", "--json", "-")
    first, second = json.loads(out)
    assert code == 1
    assert first["error"] == "photos/b.png: can't be processed (RuntimeError: OOM when allocating tensor)"
    assert len(second["faces"]) == 1
    assert "Traceback" not in err


def test_blur_hides_the_face_from_the_detector_itself(capsys, photos, bundled_model):
    code, _, _ = run(capsys, "detect", "photos/a.jpg", "--output", "out", "--blur")
    assert code == 0
    assert len(bundled_model.detect("photos/a.jpg")) == 1
    assert len(bundled_model.detect("out/a.jpg")) == 0


def test_blurred_picture_carries_no_metadata(capsys, photos):
    exif = Image.Exif()
    exif[0x010E] = "a name"
    Image.open("photos/a.jpg").save("photos/d.jpg", exif=exif)
    run(capsys, "detect", "photos/d.jpg", "--output", "out", "--blur")
    assert len(Image.open("out/d.jpg").getexif()) == 0


def test_csv(capsys, photos):
    code, out, _ = run(capsys, "detect", "photos/a.jpg", "--csv", "-")
    header, row = out.splitlines()
    assert code == 0
    assert header.startswith("file,width,height,face,score,x1")
    assert row.startswith("photos/a.jpg,512,512,0,0.99")


def test_resume_keeps_what_is_done_and_tries_again_what_failed(
    capsys, photos, sample_photo, bundled_model, monkeypatch
):
    run(capsys, "detect", "photos", "--output", "out")
    shutil.copy(sample_photo, photos / "c.jpg")
    seen = []
    detect = bundled_model.detect
    monkeypatch.setattr(
        "retinaface_tf.inference.predictor.Detector.detect",
        lambda self, images, **o: (seen.append(len(images)), detect(images, **o))[1],
    )
    code, out, _ = run(capsys, "detect", "photos", "--output", "out", "--resume")
    assert code == 0
    assert seen == [1]
    assert "3 photos, 2 faces, 0 failed" in out


@pytest.fixture
def two_photos(photos):
    (photos / "c.jpg").unlink()
    return photos


def resume(capsys, *words):
    """The exit code and standard error of a run that resumes `out`, and the photos that it detected in."""
    code, out, err = run(capsys, "detect", "photos", "--output", "out", "--resume", *words)
    return code, err, [line.split(":")[0] for line in out.splitlines() if line.startswith("photos/")]


def test_a_report_names_what_made_it(capsys, two_photos):
    run(capsys, "detect", "photos", "--output", "out", "--score-threshold", "0.3", "--resize", "300x400", "--blur")
    expected = {"model": "mobilenet025_wider", "runtime": "litert", "resize": [300, 400], "close_ups": True}
    expected |= {"score_threshold": 0.3, "nms_threshold": 0.4, "max_detections": 750, "pictures": "blurred"}
    assert [one["settings"] for one in json.loads(Path("out/detections.json").read_text())] == [expected] * 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--score-threshold", "0.9"], "score_threshold was 0.5, now 0.9"),
        (["--resize", "300x400"], "resize was 'auto', now [300, 400]"),
        (["--no-close-ups"], "close_ups was True, now False"),
        (["--preset", "mobilenet025_masked"], "model was 'mobilenet025_wider', now 'mobilenet025_masked'"),
        (["--runtime", "keras"], "runtime was 'litert', now 'keras'"),
        (["--model", "m.tflite"], "model was 'mobilenet025_wider', now 'sha256 "),
        (["--blur"], "pictures was 'marked', now 'blurred'"),
    ],
)
def test_a_report_is_not_resumed_with_other_settings(capsys, two_photos, words, line):
    shutil.copy(presets.artifacts(presets.load("mobilenet025_wider"))["tflite"][0], "m.tflite")
    run(capsys, "detect", "photos", "--output", "out")
    before = Path("out/detections.json").read_bytes()
    code, err, seen = resume(capsys, *words)
    assert (code, seen, Path("out/detections.json").read_bytes()) == (2, [], before)
    assert err.startswith(f"retinaface-tf: out/detections.json: contains results of another run: {line}")
    assert (
        err.endswith(". Repeat the earlier options, or choose another report: --json FILE\n") and err.count("\n") == 1
    )


def test_the_defaults_may_be_given_by_their_values(capsys, two_photos):
    run(capsys, "detect", "photos", "--output", "out")
    words = ["--score-threshold", "0.5", "--max-detections", "750", "--runtime", "litert", "--resize", "auto"]
    assert resume(capsys, *words) == (0, "", [])
    assert resume(capsys, "--no-pictures") == (0, "", [])


def test_a_photo_is_done_again_where_something_is_still_to_be_written(capsys, two_photos):
    run(capsys, "detect", "photos", "--output", "out", "--no-pictures")
    both = ["photos/a.jpg", "photos/b.png"]
    assert resume(capsys)[2] == both
    assert resume(capsys, "--crops")[2] == both
    assert resume(capsys, "--crops")[2] == []
    for name in ("a.jpg", "crops/a_0.png"):
        (two_photos.parent / "out" / name).unlink()
        assert resume(capsys, "--crops")[2] == both[:1]
        assert (two_photos.parent / "out" / name).is_file()
    assert resume(capsys, "--pose")[2] == ["photos/a.jpg"]  # the other has no face
    assert resume(capsys, "--pose", "--blur")[0] == 2


def test_a_report_of_version_0_1_is_resumed_unchecked(capsys, two_photos):
    run(capsys, "detect", "photos/a.jpg", "--json", "r.json")
    entries = [{**one, "settings": None} for one in json.loads(Path("r.json").read_text())]
    for one in entries:
        del one["settings"]
    Path("r.json").write_text(json.dumps(entries))
    words = ["photos", "--json", "r.json", "--resume", "--resize", "own"]
    assert run(capsys, "detect", *words)[0] == 0
    first, second = json.loads(Path("r.json").read_text())
    assert first == entries[0] and second["settings"]["resize"] is None


def test_an_interrupted_run_writes_what_it_has(capsys, photos, bundled_model, monkeypatch):
    def interrupt(self, images, **options):
        raise KeyboardInterrupt

    run(capsys, "detect", "photos/a.jpg", "--output", "out")
    with monkeypatch.context() as patch:
        patch.setattr("retinaface_tf.inference.predictor.Detector.detect", interrupt)
        code, _, err = run(capsys, "detect", "photos/a.jpg", "photos/b.png", "--output", "out", "--resume")
    assert code == 130
    assert "interrupted after 1 of 2 photos" in err
    assert len(json.loads(Path("out/detections.json").read_text())) == 1


def test_a_photo_is_never_written_over(capsys, photos):
    before = (photos / "a.jpg").read_bytes()
    code, _, err = run(capsys, "detect", "photos/a.jpg", "--output", "photos")
    assert (code, "is one of the photos" in err) == (2, True)
    assert (photos / "a.jpg").read_bytes() == before


def test_a_second_run_does_not_take_the_first_ones_pictures_for_photos(capsys, photos):
    for _ in range(2):
        _, out, _ = run(capsys, "detect", ".", "--output", "out")
        assert "2 photos, 1 face, 1 failed" in out


def test_a_name_that_is_no_utf8(capsys, photos):
    name = b"photos/\xff.jpg"
    with open(name, "wb") as file:  # noqa: PTH123
        file.write((photos / "a.jpg").read_bytes())
    code, out, _ = run(
        capsys, "detect", "photos/a.jpg", os.fsdecode(name), "--output", "out", "--csv", "-", "--json", "r.json"
    )
    assert code == 0
    assert r"photos/\udcff.jpg" in out
    assert json.loads(Path("r.json").read_text())[1]["file"] == r"photos/\udcff.jpg"
    code, out, _ = run(capsys, "detect", "photos/a.jpg", os.fsdecode(name), "--json", "r.json", "--resume")
    assert "2 photos, 2 faces" in out


@pytest.mark.parametrize("words", [["--json", "photos"], ["--csv", "photos/a.jpg/x.csv"], ["--output", "note"]])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(capsys, photos, words, monkeypatch):
    Path("note").touch()
    monkeypatch.setattr("retinaface_tf.cli.options.open_model", lambda *names, **options: pytest.fail("too late"))
    code, _, err = run(capsys, "detect", "photos/a.jpg", *words)
    assert code == 2
    assert "can't be written" in err


def test_an_output_that_cannot_be_written_is_one_line(capsys, photos):
    code, _, err = run(capsys, "detect", "photos/a.jpg", "--output", "photos/a.jpg/out")
    assert code != 0
    assert "Traceback" not in err
    assert "photos/a.jpg" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["detect", "empty"], "no photo"),
        (["detect", "*.gif"], "no file matches"),
        (["detect", "photos/a.jpg", "--score-threshold", "2"], "`score_threshold` must be a number in [0, 1]"),
        (["detect", "photos/a.jpg", "--max-detections", "0"], "`max_detections` must be a positive integer"),
        (["detect", "photos/a.jpg", "--preset", "mobilenet"], "`preset` must be one of"),
        (["detect", "photos/a.jpg", "--preset", "resnet50"], "without weights"),
        (["detect", "photos/a.jpg", "--model", "none.keras"], "none.keras"),
        (["detect", "photos/a.jpg", "--model", "photos/a.jpg"], "a.jpg"),
        (["detect", "photos/a.jpg", "--model", "damaged.keras"], "damaged.keras: not a model that Keras can open"),
        (["detect", "photos/a.jpg", "--crops"], "--output DIR"),
        (["detect", "photos/a.jpg", "--resume"], "--resume needs"),
        (["detect", "photos/a.jpg", "--json", "-", "--csv", "-"], "standard output"),
        (["convert", "weights", "none.pth", "--preset", "mobilenet025", "--output", "x.keras"], "no such file"),
        (
            ["convert", "weights", "photos/a.jpg", "--preset", "mobilenet025", "--output", "x.keras"],
            "PyTorch checkpoint",
        ),
        (["convert", "weights", "photos/a.jpg", "--preset", "mobilenet025", "--output", "x.h5"], "must end in .keras"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, photos, words, complaint):
    (photos.parent / "empty").mkdir()
    (photos.parent / "damaged.keras").write_bytes(b"hello")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert "Traceback" not in err
    assert not list(photos.parent.glob("x.*"))


def test_a_mistyped_option_is_refused(capsys, photos):
    with pytest.raises(SystemExit) as caught:
        cli.main(["detect", "photos/a.jpg", "--treshold", "1"])
    assert caught.value.code == 2


def test_help_and_bare_import_need_no_tensorflow():
    code = (
        "import sys, retinaface_tf, retinaface_tf.cli.main as c; c.build_parser(); print('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_converted_weights_can_be_used(capsys, photos, bundled_model):
    bundled_model.save("own.keras")
    code, out, _ = run(capsys, "detect", "photos/a.jpg", "--model", "own.keras")
    assert (code, out.splitlines()[0]) == (0, "photos/a.jpg: 1 face")


def test_a_photo_on_standard_input_that_does_not_end_is_refused(capsys, photos, monkeypatch):
    monkeypatch.setattr("retinaface_tf.cli.detect.LARGEST_INPUT", 1000)
    content = io.TextIOWrapper(io.BytesIO((photos / "a.jpg").read_bytes()))
    monkeypatch.setattr("sys.stdin", content)
    code, _, err = run(capsys, "detect", "-", "--json", "r.json")
    assert (code, err.count("\n")) == (2, 1) and "more than 1,000 bytes on standard input" in err
    assert not (photos.parent / "r.json").exists()
