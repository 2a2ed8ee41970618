"""`retinaface-tf export ...` as its user meets it, and the certificate of `verify`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_tf import export, verify
from retinaface_tf.cli import main as cli
from retinaface_tf.cli.options import width_and_height as parse_size
from retinaface_tf.export.certificate import Certificate, bundled_photos, compare
from retinaface_tf.export.metadata import count_operations, measure
from retinaface_tf.export.options import ExportOptions
from retinaface_tf.export.parity import TOLERANCES, Parity, match
from retinaface_tf.inference.detections import Detections

pytestmark = pytest.mark.usefixtures("one_model")


@pytest.fixture
def one_artifact(monkeypatch, exported_saved_model, saved_model_detector):
    """Commands that name the exported SavedModel share it, opened; opening takes a second too."""
    from retinaface_tf.inference import formats

    original = formats.Format.open
    monkeypatch.setattr(
        formats.Format,
        "open",
        lambda self, path, *o, **k: (
            saved_model_detector.runtime if path == exported_saved_model else original(self, path, *o, **k)
        ),
    )


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def faces(*rows, shift=0.0):
    """`Detections` of (score, x, y, side)."""
    boxes = np.array([[x, y, x + side, y + side] for _, x, y, side in rows], np.float32).reshape(-1, 4)
    landmarks = np.repeat(boxes[:, None, :2], 5, axis=1) + np.float32(shift)
    return Detections(boxes, np.array([row[0] for row in rows], np.float32), landmarks, 100, 100)


def test_export_then_detect_then_verify(capsys, tmp_path, sample_photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_photo, "a.jpg")
    code, out, err = run(capsys, "export", "saved_model", "--preset", "mobilenet025_wider", "--output", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("out/1: ")
    assert out.splitlines()[-1] == "check it: retinaface-tf export verify out/1"
    code, out, _ = run(capsys, "detect", "a.jpg", "--model", "out")
    assert (code, out.splitlines()[0]) == (0, "a.jpg: 1 face")
    words = ["--images", "a.jpg", "--runs", 1, "--certificate", "c.txt", "--json", "c.json"]
    code, out, err = run(capsys, "export", "verify", "out", *words)
    assert (code, err) == (0, "")
    assert out == Path("c.txt").read_text()
    facts = json.loads(Path("c.json").read_text())
    assert facts["passed"] is True
    assert facts["faces"] == {"python": 1, "artifact": 1, "matched": 1}
    assert max(facts["largest_difference"].values()) < 1e-3
    assert facts["operations"]["NonMaxSuppressionV5"] == 1
    assert facts["operations"]["DepthwiseConv2dNative"] == 13
    assert (facts["bytes"], facts["sha256"]) == measure("out/1")


def test_evaluate_runs_an_artifact(capsys, one_artifact, exported_saved_model, tmp_path, sample_photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_photo, "a.jpg")
    Path("labels.csv").write_text("file,x1,y1,x2,y2\na.jpg,178,57,273,177\n")
    words = ["--detections", "found", "--ground-truth", "labels.csv", "--images", ".", "--quiet", "--json", "-"]
    code, _, err = run(capsys, "evaluate", "coco", "--model", exported_saved_model, *words)
    assert (code, err) == (0, "")
    assert Path("found/run.json").is_file()


def test_verify_with_labels(capsys, one_artifact, exported_saved_model, tmp_path, sample_photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    shutil.copy(sample_photo, "photos/a.jpg")
    Path("labels.csv").write_text("file,x1,y1,x2,y2\na.jpg,178,57,273,177\n")
    words = ["--images", "photos", "--ground-truth", "labels.csv", "--runs", 1, "--json", "-"]
    code, out, err = run(capsys, "export", "verify", exported_saved_model, *words)
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["average_precision"] == {"python": {"all": 1.0}, "artifact": {"all": 1.0}}
    assert facts["lost"] == facts["gained"] == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["saved_model", "--preset", "mobilenet", "--output", "x"], "`preset` must be one of"),
        (["saved_model", "--preset", "resnet50", "--output", "x"], "without weights"),
        (["saved_model", "--model", "none.keras", "--output", "x"], "must be a .keras file that exists"),
        (["saved_model", "--model", "file", "--output", "x"], "must be a .keras file that exists"),
        (["saved_model", "--model", "other.keras", "--output", "x"], "contains a Sequential. Expected a RetinaFace"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "file"], "file: exists, and is a file"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "file/x"], "can't be written"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "full"], "full: exists, and contains mine"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "x", "--size", "64x64"], "any size"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "x", "--score-threshold", "2"], "in [0, 1]"),
        (["saved_model", "--preset", "mobilenet025_wider", "--output", "x", "--max-detections", "0"], "positive"),
        (["tflite", "--preset", "mobilenet025_wider", "--output", "x.onnx", "--size", "64x64"], "must end in .tflite"),
        (["tflite", "--preset", "mobilenet025_wider", "--output", "old.tflite", "--size", "64x64"], "--overwrite"),
        (["tflite", "--preset", "mobilenet", "--output", "x.tflite", "--size", "64x64"], "`preset` must be one of"),
        (
            ["tflite", "--preset", "mobilenet025_wider", "--output", "x.tflite", "--size", "99999x99999"],
            "at most 50000000",
        ),
        (["onnx", "--preset", "mobilenet025_wider", "--output", "file/x.onnx"], "can't be written"),
        (["onnx", "--preset", "mobilenet025_wider", "--output", "x.tflite"], "must end in .onnx"),
        (["verify", "mobilenet025_wider"], "not an artifact"),
        (["verify", "none.tflite"], "none.tflite: no such file"),
        (["verify", "full"], "no SavedModel in this folder"),
        (["verify", "MODEL", "--runs", "0"], "--runs must be at least 1"),
        (["verify", "MODEL", "--images", "full"], "no photo in this folder"),
        (["verify", "MODEL", "--images", "file"], "not an image that Pillow can read"),
        (["verify", "MODEL", "--ground-truth", "file"], "--ground-truth needs --images DIR"),
        (["verify", "MODEL", "--certificate", "file/c.txt"], "can't be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, words, complaint, exported_saved_model, other_keras, one_artifact
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("hello")
    Path("old.tflite").write_text("hello")
    Path("full").mkdir()
    Path("full/mine").touch()
    Path("other.keras").write_bytes(other_keras)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(capsys, "export", *(exported_saved_model if word == "MODEL" else word for word in words))
    assert (code, out) == (2, "")
    assert complaint in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("old.tflite").read_text() == "hello"


@pytest.fixture(scope="module")
def other_keras(tmp_path_factory):
    """Bytes of a .keras file that is none of ours."""
    import keras

    path = tmp_path_factory.mktemp("other") / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    return path.read_bytes()


def test_an_unknown_format_and_a_wrong_size_are_refused(capsys):
    for words in (
        ["coreml", "--preset", "mobilenet025_wider"],
        ["tflite", "--preset", "mobilenet025_wider", "--output", "x.tflite", "--size", "640"],
        ["tflite", "--preset", "mobilenet025_wider", "--output", "x.tflite", "--size", "0x480"],
        ["onnx", "--output", "x.onnx"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(["export", *words])
        assert caught.value.code == 2
    assert parse_size("640x480") == (480, 640)  # said width first, kept height first


def test_calibration_photos_are_looked_for_before_tensorflow_starts(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("retinaface_tf.cli.export_options.load_model", lambda args: pytest.fail("too late"))
    words = ["export", "tflite", "--preset", "mobilenet025_wider", "--size", "64x64", "--quantize", "int8"]
    words += ["--output", str(tmp_path / "x.tflite")]
    for more, complaint in {
        (): "DIR is missing",
        ("--calibration", str(tmp_path)): "at least 8 photos",
    }.items():
        assert cli.main([*words, *more]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tflite", "--quantize", "int8", "--output", "x.tflite"), ("saved_model", "--output", "file")]
)
def test_tensorflow_loads_without_a_word(words, tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "retinaface_tf", "export", *words, "--preset", "mobilenet025_wider"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_model_that_does_not_convert_is_one_line(capsys, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no conversion of op Foo\nand a page more")

    monkeypatch.setattr("retinaface_tf.export.saved_model.build_signatures", fail)
    path = tmp_path / "x"
    code, _, err = run(capsys, "export", "saved_model", "--preset", "mobilenet025_wider", "--output", path)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert err == "retinaface-tf: this model can't be converted (RuntimeError: no conversion of op Foo)\n"


@pytest.mark.parametrize(
    "wrong", [{"size": (0, 10)}, {"size": 10.5}, {"nms_threshold": -1}, {"max_detections": 1.5}, {"top_k": None}]
)
def test_options_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^`{name}` must be"):
        ExportOptions(**wrong)


def test_faces_are_matched_one_to_one():
    boxes_a = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
    boxes_b = np.array([[2, 0, 12, 10], [90, 90, 99, 99], [0, 0, 10, 10]])
    rows, columns = match(boxes_a, boxes_b)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 2), (1, 0)]
    assert [len(each) for each in match(np.zeros((0, 4)), boxes_b)] == [0, 0]
    assert [len(each) for each in match(boxes_a[:1], boxes_a[:1] + 4)] == [0, 0]  # too little in common


def test_parity_lists_what_differs():
    parity = Parity(TOLERANCES["fp32"], score_threshold=0.5)
    parity.add("same", faces((0.9, 0, 0, 20)), faces((0.9, 0, 0, 20)))
    assert parity.failures() == []
    parity.add("near", faces((0.9, 0, 0, 20), (0.5005, 50, 0, 20)), faces((0.9, 0, 0, 20)))
    assert [face["near_threshold"] for face in parity.lost] == [True]
    assert parity.failures() == []  # a face at the threshold may come and go
    parity.add("gained", faces(), faces((0.8, 0, 0, 20)))
    parity.add("moved", faces((0.9, 0, 0, 20)), faces((0.88, 1, 0, 20), shift=2))
    assert (parity.python, parity.artifact, parity.matched) == (4, 4, 3)
    assert (parity.boxes, parity.landmarks) == (1, 3)
    assert parity.scores == pytest.approx(0.02)
    assert parity.gained == [{"photo": "gained", "score": 0.8, "box": [0, 0, 20, 20], "near_threshold": False}]
    text = "; ".join(parity.failures())
    for name in ("scores: 0.02, allowed 0.001", "boxes: 1 px", "landmarks: 3 px", "gained or lost", "landmark shift"):
        assert name in text


def test_a_full_image_has_another_lowest_score():
    parity = Parity(TOLERANCES["fp16"], score_threshold=0.5, max_detections=2)
    parity.add("full", faces((0.9, 0, 0, 20), (0.702, 50, 0, 20)), faces((0.9, 0, 0, 20), (0.701, 50, 90, 20)))
    assert [face["near_threshold"] for face in parity.lost + parity.gained] == [True, True]
    assert parity.failures() == []  # the last place is as near for both
    parity.add("not full", faces((0.9, 0, 0, 20), (0.7, 50, 0, 20)), faces((0.9, 0, 0, 20)))
    assert parity.lost[-1]["near_threshold"] is False
    assert len(parity.failures()) == 1


def test_a_face_swapped_for_a_candidate_of_the_same_score_is_told_and_no_other():
    kept, neighbor = (0.808, 0, 0, 20), (0.805, 3, 0, 20)
    found, candidates = faces(neighbor), faces(kept, neighbor, (0.6, 0, 6, 20))

    def parity(artifact, candidates, tolerance=TOLERANCES["fp16"]):
        parity = Parity(tolerance, score_threshold=0.5)
        parity.add("a", faces(kept), artifact, candidates=lambda: candidates)
        return parity

    swapped = parity(found, candidates)
    (swap,) = swapped.swapped
    assert (swap["photo"], swap["score"], swap["candidate_score"], swap["boxes_px"]) == ("a", 0.808, 0.805, 3)
    assert (swapped.boxes, swapped.landmarks, swapped.failures()) == (0, 0, [])
    assert swapped.scores == pytest.approx(0.003, rel=1e-4)
    swapped.add("b", faces(kept), found, candidates=lambda: candidates)
    assert [line.split(":")[0] for line in swapped.failures()] == ["faces swapped by NMS"]  # two of two
    for artifact, others, tolerance in (
        (found, faces(kept), TOLERANCES["fp16"]),  # Python has no such candidate
        (faces((0.805, 3, 0, 20), shift=1), candidates, TOLERANCES["fp16"]),  # nor one with such landmarks
        (faces((0.805, 3, 0, 21)), candidates, TOLERANCES["fp16"]),  # nor one with such a box
        (faces((0.8, 0, 6, 20)), candidates, TOLERANCES["fp16"]),  # its score in Python is another
        (found, candidates, TOLERANCES["fp32"]),  # which can tell these two apart
        (faces((0.79, 3, 0, 20)), faces(kept, (0.79, 3, 0, 20)), TOLERANCES["fp16"]),  # no tie
    ):
        off = parity(artifact, others, tolerance)
        assert off.swapped == []
        assert off.boxes >= 3
        assert off.failures()


def test_numbers_that_are_none_are_refused():
    broken = faces((0.9, 0, 0, 20), shift=np.nan)
    with pytest.raises(ValueError, match=r"^a: the artifact returns numbers that are not finite"):
        Parity(TOLERANCES["fp32"], score_threshold=0.5).add("a", faces((0.9, 0, 0, 20)), broken)


def test_an_int8_artifact_is_judged_by_its_means():
    parity = Parity(TOLERANCES["int8"], score_threshold=0.5)
    for _ in range(20):
        parity.add("a", faces((0.9, 0, 0, 100)), faces((0.85, 3, 0, 100), shift=-1.5))
    assert parity.landmark_shift == pytest.approx(np.hypot(1.5, -1.5) / 100, rel=1e-4)
    assert parity.landmark_shift > 0.02
    assert [line.split(":")[0] for line in parity.failures()] == ["mean landmark shift"]
    parity.add("b", faces((0.9, 0, 0, 100)), faces())
    assert len(parity.failures()) == 1  # one face of 21
    parity.add("b", faces((0.9, 0, 0, 100)), faces())
    assert len(parity.failures()) == 2


def test_an_artifact_that_differs_fails(exported_saved_model, saved_model_detector, bundled_model):
    class Off:
        def __init__(self):
            self.metadata = {**saved_model_detector.metadata, "weights_sha256": "0"}

        def detect(self, image, **options):
            found = bundled_model.detect(image, **options)
            return Detections(found.boxes + 0.1, found.scores, found.landmarks, found.width, found.height)

    photos = {name: photo for name, photo in bundled_photos().items() if name in ("320x320", "no face 200x150")}
    low = {"all": 0.9}, {"all": 0.8}
    facts = compare(
        exported_saved_model / "1",
        "saved_model",
        Off(),
        bundled_model,
        photos.items(),
        labels=lambda python, artifact: {"python": low[0], "artifact": low[1]},
        runs=1,
    )
    assert facts["passed"] is False
    assert [line.split(":")[0] for line in facts["failures"]] == [
        "it was made from other weights than those of the model beside it",
        "boxes",
        "AP all",
    ]
    text = str(Certificate(facts))
    assert max(map(len, text.splitlines())) <= 100
    assert "failed: it was made from other weights" in text
    assert "all 0.9000 -> 0.8000" in text
    json.dumps(facts, allow_nan=False)
    face = {"score": 0.5, "box": [1, 2, 3, 4], "photo": "a.jpg", "near_threshold": True}
    swapped = {**face, "candidate_score": 0.49, "boxes_px": 7.0, "landmarks_px": 2.0}
    text = str(Certificate({**facts, "lost": [face] * 100, "swapped": [swapped] * 100}))
    assert "faces lost     100" in text and "near the score threshold: a.jpg, box 1.0, 2.0, 3.0, 4.0" in text
    assert "scores 0.5000 and 0.4900 in Python, 7 px off, landmarks 2 px: a.jpg" in text
    assert text.count("and 90 more") == 2
    with pytest.raises(ValueError, match="no photo"):
        compare(exported_saved_model / "1", "saved_model", Off(), bundled_model, [])


def test_the_bundled_photos_are_many_kinds(bundled_model):
    counts = {name: len(bundled_model.detect(photo, close_ups=False)) for name, photo in bundled_photos().items()}
    assert counts.pop("no face 200x150") == 0
    assert counts.pop("four faces 640x480") == 4
    assert counts.pop("crowd 880x780") == 300
    assert min(counts.values()) >= 1


def test_operations_of_tflite_and_onnx_are_read_without_running(tmp_path):
    import flatbuffers
    import onnx
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT()
    codes = schema.BuiltinOperator
    kinds = [(codes.CONV_2D, None), (codes.NON_MAX_SUPPRESSION_V5, None), (codes.CUSTOM, "Foo")]
    model.operatorCodes, model.subgraphs = [], [schema.SubGraphT()]
    for code, name in kinds:
        operator = schema.OperatorCodeT()
        operator.builtinCode, operator.deprecatedBuiltinCode, operator.customCode = code, min(code, 127), name
        model.operatorCodes.append(operator)
    model.subgraphs[0].operators = []
    for index in (0, 0, 1, 2):
        operator = schema.OperatorT()
        operator.opcodeIndex = index
        model.subgraphs[0].operators.append(operator)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "a.tflite").write_bytes(builder.Output())
    expected = {"CONV_2D": 2, "CUSTOM Foo": 1, "NON_MAX_SUPPRESSION_V5": 1}
    assert count_operations(tmp_path / "a.tflite", "tflite") == expected

    node = onnx.helper.make_node
    branch = onnx.helper.make_graph([node("Neg", ["x"], ["y"])], "branch", [], [])
    choice = node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = onnx.helper.make_graph([choice, node("Foo", ["z"], ["w"], domain="mine")], "graph", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    assert count_operations(tmp_path / "a.onnx", "onnx") == {"Neg": 2, "If": 1, "mine.Foo": 1}


def test_the_checksum_of_a_folder_is_of_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "x.png")
    assert measure(tmp_path / "a") == measure(tmp_path / "b")
    (tmp_path / "b" / "x.png").rename(tmp_path / "b" / "y.png")
    assert measure(tmp_path / "a")[1] != measure(tmp_path / "b")[1]


def test_a_certificate_from_python_shows_a_full_room(bundled_model, sample_photo, tmp_path):
    path = export(bundled_model, tmp_path / "faces.tflite", size=(96, 128), max_detections=3)
    crowd = Image.fromarray(bundled_photos()["crowd 880x780"]).crop((0, 0, 128, 96))  # 2 x 3 faces, and parts of others
    found = len(bundled_model.detect(np.asarray(crowd), close_ups=False))
    assert found > 4
    result = verify(path, bundled_model, {"crowd": crowd, "one": sample_photo}, runs=1)
    assert result.passed and result.facts["room_full"] == [{"photo": "crowd", "python": found, "artifact": 3}]
    assert f"maximum faces  3 faces in the artifact, {found} in Python: crowd" in str(result)
    assert export.verify is verify
    with pytest.raises(ValueError, match="not an artifact"):
        verify(sample_photo)
