"""Batch runs: the rows of the plain command, whatever becomes of the workers."""

import json
import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from retinaface_tf import load
from retinaface_tf.cli.main import main
from retinaface_tf.inference import report
from retinaface_tf.integrations.batch import run, worker
from retinaface_tf.integrations.batch.sources import Part, choose_part_size, find_parts, read_photos
from retinaface_tf.loading import identify

pytestmark = pytest.mark.slow  # starts Ray

OPTIONS = {
    "score_threshold": 0.5,
    "nms_threshold": 0.4,
    "max_detections": 750,
    "resize": "auto",
    "batch_size": 4,
    "close_ups": True,
}
COUNT = 24


@pytest.fixture(scope="module")
def photos(sample_photo, tmp_path_factory):
    """A folder of `COUNT` photos of many sizes: one without a face, one that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    astronaut = Image.open(sample_photo)
    for i in range(COUNT):
        astronaut.resize((150 + 7 * (i % 5), 140 + 9 * (i % 3))).save(folder / f"{i:02}.jpg")
    Image.new("RGB", (90, 80)).save(folder / "03.jpg")
    (folder / "05.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def plain(photos, bundled_onnx, tmp_path_factory):
    """What the plain command says of them: dict file -> entry."""
    path = tmp_path_factory.mktemp("plain") / "report.json"
    assert main(["detect", str(photos), "--model", str(bundled_onnx), "--json", str(path), "--quiet"]) == 1
    return {entry["file"]: entry for entry in json.loads(path.read_text("utf-8"))}


def rows(folder):
    """All rows of a folder, in no order: list of dicts."""
    return [row for path in worker.parts_done(folder) for row in pq.read_table(path).to_pylist()]


def assert_same(found, plain):
    assert sorted(row["file"] for row in found) == sorted(plain)  # none lost, none doubled
    for row in found:
        entry = plain[row["file"]]
        assert (row["width"], row["height"], row["error"]) == (entry["width"], entry["height"], entry.get("error"))
        expected = [[f["score"], *f["box"], *np.ravel(f["landmarks"])] for f in entry.get("faces", [])]
        numbers = [list(face.values()) for face in row["faces"]]
        np.testing.assert_allclose(numbers, expected, atol=2e-3)


def make_worker(bundled_onnx, folder, column="image"):
    return worker.Worker(str(bundled_onnx), str(folder), OPTIONS, column, threads=1)


def test_parts_have_names_that_last(photos):
    parts, complaints, _ = find_parts([str(photos)], part_size=10)
    assert ([len(part.paths) for part in parts], complaints) == ([10, 10, 4], [])
    assert len({part.name for part in parts}) == 3
    assert parts == find_parts([str(photos / "*.jpg")], part_size=10)[0]
    assert find_parts(["no/*.parquet"], 10) == ([], ["no/*.parquet: no file matches this pattern"], [])
    assert parts[0].name == Part("files", parts[0].paths).name != Part("files", parts[0].paths[::-1]).name


def test_every_worker_has_parts(photos):
    assert [choose_part_size(*numbers) for numbers in ((200, 4), (200, 64), (10**6, 4), (0, 1))] == [25, 8, 500, 8]
    parts, *_ = find_parts([str(photos)], None, workers=2)
    assert [len(part.paths) for part in parts] == [8, 8, 8]


def test_what_is_done_is_left_out(photos):
    parts, *_ = find_parts([str(photos)], part_size=10)
    first, second, third = parts
    # A run that was cut short: whole parts are done, and the others keep their names.
    assert find_parts([str(photos)], 10, done=set(second.paths))[0] == [first, third]
    # Photos came since: what is left is cut anew.
    (rest,) = find_parts([str(photos)], 10, done={*first.paths, *second.paths, third.paths[1]})[0]
    assert rest.paths == (third.paths[0], *third.paths[2:])
    assert find_parts([str(photos)], 10, done={p for part in parts for p in part.paths})[0] == []


def test_rows_are_those_of_the_plain_command(photos, plain, bundled_onnx, tmp_path):
    work = make_worker(bundled_onnx, tmp_path)
    parts, *_ = find_parts([str(photos)], part_size=20)
    numbers = [work(part) for part in parts]
    assert [n["photos"] for n in numbers] == [20, 4]
    assert sum(n["errors"] for n in numbers) == 1
    assert_same(rows(tmp_path), plain)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    work.model = None  # a part that is there is not looked at again
    assert [work(part) for part in parts] == numbers
    assert worker.photos_done(tmp_path) == {file: "error" in entry for file, entry in plain.items()}


def test_photos_in_parquet_and_tfrecord(photos, plain, bundled_onnx, tmp_path):
    import tensorflow as tf

    names = ["00.jpg", "01.jpg", "03.jpg", "05.jpg"]
    content = [(photos / name).read_bytes() for name in names]
    pq.write_table(pa.table({"id": names, "image": content}), tmp_path / "bytes.parquet", row_group_size=3)
    structs = [{"bytes": value, "path": None} for value in content]  # as Hugging Face datasets have it
    pq.write_table(pa.table({"image": structs}), tmp_path / "structs.parquet")
    with tf.io.TFRecordWriter(str(tmp_path / "all.tfrecord")) as writer:
        for value in content:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            example = tf.train.Example(features=tf.train.Features(feature={"image": feature}))
            writer.write(example.SerializeToString())
    inputs = [str(tmp_path / "*.parquet"), str(tmp_path / "all.tfrecord")]
    parts, *_ = find_parts(inputs, part_size=1)
    assert [(part.kind, part.group) for part in parts] == [
        ("parquet", 0),
        ("parquet", 1),
        ("parquet", 0),
        ("tfrecord", -1),
    ]
    work = make_worker(bundled_onnx, tmp_path)
    for part in parts:
        work(part)
    found = {row["file"]: row for row in rows(tmp_path)}
    assert len(found) == 12
    for file in ("bytes.parquet", "structs.parquet", "all.tfrecord"):
        for number, name in enumerate(names):
            row = found[f"{tmp_path / file}#{number}"]
            entry = plain[str(photos / name)]
            assert len(row["faces"]) == len(entry.get("faces", []))
            assert (row["error"] is None) == ("error" not in entry)
    assert "all.tfrecord#3: not an image" in found[f"{tmp_path / 'all.tfrecord'}#3"]["error"]


def test_a_column_that_is_not_there(tmp_path):
    pq.write_table(pa.table({"jpeg": [b""]}), tmp_path / "a.parquet")
    (part,), *_ = find_parts([str(tmp_path / "a.parquet")], part_size=1)
    with pytest.raises(ValueError, match=r"no column 'image'. It has jpeg: --image-column"):
        list(read_photos(part, "image"))
    (tmp_path / "b.parquet").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"b.parquet: not a Parquet file"):
        find_parts([str(tmp_path / "b.parquet")], part_size=1)


def test_a_photo_that_kills_the_process_is_a_row(photos, bundled_onnx, tmp_path, monkeypatch):
    class Killed(BaseException):
        """What is left of a process that is gone: nothing catches it."""

    def load(source, *options):
        if str(source).endswith("08.jpg"):
            raise Killed
        return real(source, *options)

    real = worker.load_reduced
    monkeypatch.setattr(worker, "load_reduced", load)
    work = make_worker(bundled_onnx, tmp_path)
    part = find_parts([str(photos)], part_size=COUNT)[0][0]
    for _ in range(3):  # together with others; alone; alone again
        with pytest.raises(Killed):
            work(part)
        assert worker.parts_done(tmp_path) == []
    assert work(part)["errors"] == 2
    errors = {row["file"]: row["error"] for row in rows(tmp_path) if row["error"]}
    assert "the photo made the process crash" in errors[str(photos / "08.jpg")]
    assert [p.name for p in tmp_path.iterdir()] == [part.name]


def test_one_accident_blames_no_photo(photos, plain, bundled_onnx, tmp_path, monkeypatch):
    work = make_worker(bundled_onnx, tmp_path)
    part = find_parts([str(photos)], part_size=COUNT)[0][0]
    for _ in range(2):  # killed once in the first attempt, once in the second
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(work.model, "detect", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            work(part)
    work(part)
    assert_same(rows(tmp_path), plain)


def test_a_folder_belongs_to_one_run(bundled_onnx, tmp_path):
    worker.open_folder(tmp_path, {"model": "mobilenet025_wider", "score_threshold": 0.3})
    worker.open_folder(tmp_path, {"model": "mobilenet025_wider", "score_threshold": 0.5})  # no row is there yet
    (tmp_path / "part-0.parquet").write_bytes(b"half")
    worker.open_folder(tmp_path, {"model": "mobilenet025_wider", "score_threshold": 0.5})
    with pytest.raises(ValueError, match=r"score_threshold was 0\.5, now 0\.4\. Choose another folder"):
        worker.open_folder(tmp_path, {"model": "mobilenet025_wider", "score_threshold": 0.4})
    with pytest.raises(ValueError, match=r"model was 'mobilenet025_wider', now 'sha256"):
        worker.open_folder(tmp_path, {**identify(bundled_onnx), "score_threshold": 0.5})
    other = {"model": "mobilenet025_wider", "runtime": "keras", "score_threshold": 0.5}
    worker.open_folder(tmp_path, other)  # version 0.2 kept no runtime
    with pytest.raises(ValueError, match="runtime was 'keras', now 'litert'"):
        worker.open_folder(tmp_path, {**other, **identify("mobilenet025_wider")})
    with pytest.raises(ValueError, match=r"part-0.parquet: not a complete part"):
        worker.photos_done(tmp_path)


def test_the_schema_has_the_columns_of_the_csv():
    from retinaface_tf.integrations.batch.worker import schema

    faces = [field.name for field in schema().field("faces").type.value_type]
    assert set(faces) == set(report.COLUMNS) - {"file", "width", "height", "face", "error"}


def test_two_workers_of_which_one_is_killed(photos, plain, bundled_onnx, tmp_path, capsys, monkeypatch):
    real, killed = run.run_parts, []

    def run_and_kill(*args, **kwargs):
        for result in real(*args, **kwargs):
            if not killed:
                os.kill(result["pid"], signal.SIGKILL)
                killed.append(result["pid"])
            yield result

    monkeypatch.setattr(run, "run_parts", run_and_kill)
    command = ["batch", str(photos), "--model", str(bundled_onnx), "--output", str(tmp_path / "out")]
    assert main([*command, "--workers", "2", "--part-size", "3"]) == 1  # one photo is broken
    assert len(killed) == 1
    faces = sum(len(entry.get("faces", ())) for entry in plain.values())
    assert f"{COUNT - 1} photos, {faces} faces, 1 failed; rows in" in capsys.readouterr().out
    assert_same(rows(tmp_path / "out"), plain)

    monkeypatch.setattr(run, "run_parts", lambda *_, **__: iter(()))
    assert main([*command, "--part-size", "3"]) == 1
    assert f"{COUNT} were there already, 1 of them failed" in capsys.readouterr().out
    assert main([*command, "--score-threshold", "0.3"]) == 2
    assert "contains results of another run" in capsys.readouterr().err


def test_a_column_of_paths_opens_no_file(tmp_path, sample_photo):
    """A stranger's table could name any file of the machine."""
    pq.write_table(pa.table({"image": [str(sample_photo)]}), tmp_path / "a.parquet")
    (part,), *_ = find_parts([str(tmp_path / "a.parquet")], part_size=1)
    with pytest.raises(ValueError, match=r"the column 'image' holds string\. Expected the bytes of photos"):
        list(read_photos(part, "image"))


def test_a_damaged_record_costs_no_other(tmp_path):
    good = tf.train.Example()
    good.features.feature["image"].bytes_list.value.append(b"photo")
    empty = tf.train.Example()
    empty.features.feature["image"].bytes_list.SetInParent()
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for record in (good.SerializeToString(), b"\xff\xff", empty.SerializeToString(), good.SerializeToString()):
            writer.write(record)
    (part,), *_ = find_parts([str(tmp_path / "a.tfrecord")], part_size=1)
    assert [content for _, content in read_photos(part, "image")] == [b"photo", b"", b"", b"photo"]


def test_a_failure_comes_back_as_a_line(bundled_onnx, tmp_path):
    from retinaface_tf.integrations.batch.run import RemoteWorker

    pq.write_table(pa.table({"jpeg": [b""]}), tmp_path / "a.parquet")
    item = {"kind": "parquet", "paths": [str(tmp_path / "a.parquet")], "group": 0}
    arguments = {"output": str(tmp_path), "options": OPTIONS, "column": "image", "threads": 1}
    assert "no column 'image'" in RemoteWorker(model=str(bundled_onnx), **arguments)(item)["failure"]
    assert "none.onnx: no such file" in RemoteWorker(model="none.onnx", **arguments)(item)["failure"]
    assert worker.parts_done(tmp_path) == []


def test_failed_photos_are_said_by_quiet_runs_too(tmp_path, photos, bundled_onnx, monkeypatch, capsys):
    monkeypatch.setattr(run, "run_batch", lambda *_, **__: {"photos": 3, "faces": 2, "errors": 2})
    command = ["batch", str(photos), "--output", str(tmp_path / "out"), "--model", str(bundled_onnx), "--quiet"]
    assert main(command) == 1
    assert "2 photos failed: see the column `error` in" in capsys.readouterr().err


def test_an_artifact_with_less_room_is_asked_for_no_more(tmp_path, photos, exported_tflite, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(run, "run_parts", lambda parts, worker, **_: asked.append(worker["options"]) or iter(()))
    command = ["batch", str(photos), "--output", str(tmp_path / "out"), "--model", str(exported_tflite)]
    assert main([*command, "--quiet"]) == 0
    assert {name: asked[0][name] for name in ("score_threshold", "nms_threshold", "max_detections")} == {
        name: load(exported_tflite).metadata[name] for name in ("score_threshold", "nms_threshold", "max_detections")
    }
    assert main([*command, "--max-detections", str(asked[0]["max_detections"] + 1)]) == 2
    assert "`max_detections` is fixed in this artifact" in capsys.readouterr().err


def test_bad_options_are_one_line(tmp_path, photos, capsys, monkeypatch):
    command = ["batch", str(photos), "--output", str(tmp_path / "out")]
    for words, line in {
        ("--workers", "0"): "--workers must be at least 1",
        ("--score-threshold", "2"): "`score_threshold` must be",
        ("--model", "none.onnx"): "no such file",
        ("--preset", "no_such"): "unknown model",
    }.items():
        assert main([*command, *words]) == 2
        assert line in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(command) == 2
    assert "pip install 'retinaface-tf[batch]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
