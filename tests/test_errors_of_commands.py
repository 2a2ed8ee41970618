"""Command line -> the line that its user gets: what no other test of a command provokes, in one table."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.cli import main as cli

MODEL = "--preset mobilenet025_wider"
FACES = "--ground-truth faces.csv --images photos --detections found"
ROWS = [
    ("detect", "no input: name a photo, a folder, a video, or --camera NUMBER"),
    ("detect empty", "no photo found"),
    ("detect photos/a.png --json=", "--json: expected a value. Received an empty one: is a variable not set?"),
    ("detect photos/a.png --json round", "round: can't be written (Too many levels of symbolic links)"),
    ("detect pipe.mp4", "pipe.mp4: expected a file, found a named pipe"),
    (
        "label --images photos --annotations labels.csv --output photos/a.png",
        "--output expects the name of a report. Re",
    ),
    ("label --images photos --scales 1 --output o.csv --looks pipe.mp4", "pipe.mp4: expected a file, found a named pi"),
    (
        "convert custom --images photos --annotations xml --output o --json xml/a.xml",
        "--json would replace xml/a.xml",
    ),
    (
        "inspect bare --json bare/manifest.json",
        "--json would replace bare/manifest.json, in a folder that the command re",
    ),
    (
        "inspect bare --json bare/a.tfrecord",
        "--json would replace bare/a.tfrecord, in a folder that the command reads.",
    ),
    ("convert weights photos --preset mobilenet025 --output o.keras", "photos: Is a directory"),
    (f"thresholds {FACES} {MODEL} --precision nan", "--precision out of range. Received: nan"),
    (f"thresholds {FACES} {MODEL} --false-positives-per-image inf", "per-image out of range. Received: inf"),
    ("detect photos/a.png --frames 3", "--frames is only for a video or a camera"),
    ("detect photos/a.png --no-tracks", "--no-tracks is only for a video or a camera"),
    ("detect photos/a.png clip.mp4", "a video is processed alone: run one command per video. Received: 2 inputs"),
    ("detect clip.mp4 --crops --output out", "--crops is only for photos. For a video use --output and --json"),
    ("detect clip.mp4 --csv x.csv", "--csv is only for photos. For a video use --output and --json"),
    ("detect clip.mp4 --blur", "--blur needs a file for the video: --output OUT.mp4"),
    ("detect clip.mp4 --frames 0", "--frames must be at least 1. Received: 0"),
    ("detect clip.mp4 --output out.avi", "videos are saved as .mp4, .m4v, .mov, .mkv, .webm. Received: out.avi"),
    ("detect --camera 0 photos/a.png", "--camera can't be combined with a PHOTO. Received: photos/a.png"),
    ("detect none.mp4", "none.mp4: no such file"),
    ("detect bad.mp4", "bad.mp4: can't be opened as a video (Invalid data found when processing input)"),
    ("detect --camera /dev/video9", "camera /dev/video9: can't be opened as a video (No such file or directory)"),
    ("detect photos/a.png --model old.onnx", "old.onnx: not an ONNX file that ONNX Runtime can open"),
    ("detect photos/a.png --model bad.keras", "bad.keras: not a model that Keras can open"),
    ("batch empty --output rows", "no photo found"),
    ("batch none.parquet --output rows", "none.parquet: can't be read ("),
    ("batch bad.parquet --output rows", "bad.parquet: not a Parquet file"),
    (
        "label --images photos --annotations labels.csv --output o.csv --classes x",
        "--classes: no face has ['x']. Classes in the labels",
    ),
    (
        "label --images photos --annotations eyes.csv --output o.csv",
        "finds none of the faces in eyes.csv. Are the photos of",
    ),
    ("label --images photos --annotations short.csv --output o.csv", ":2: expected 5 values, it has"),
    (
        "label --images photos --annotations labels.csv --output o.csv --min-score 2",
        "must be in [0, 1]. Received",
    ),
    ("train --preset mobilenet025 --print-config --set epochs=soon", "`epochs` of `TrainConfig` must be int"),
    ("train --preset mobilenet025 --print-config --set epochs=0", "`epochs` must be at least 1. Received: epochs=0"),
    ("train --preset mobilenet025 --print-config --set blend=0", "`blend` must be above 0. Received: blend=0"),
    ("train --preset mobilenet025 --print-config --set blend=2", "`blend` must be at most 1. Received: blend=2"),
    ("inspect old", ", it has 9: convert the data again"),
    ("train --preset mobilenet025 --output run", "--data is missing: expected a folder"),
    ("train --preset mobilenet025 --output run --data bare", "bare: no photo to train on: see what `convert` reported"),
    ("convert widerface --images none --annotations label.txt --output o", "none: no such folder; expected the folder"),
    (
        "convert widerface --images empty --annotations label.txt --output o",
        "none of the 1 photos was found; expected, for example,",
    ),
    ("convert widerface --images photos --annotations bad.keras --output o", "bad.keras:1: expected a photo such as"),
    ("convert widerface --images photos --annotations photos/a.png --output o", "a.png:1: expected UTF-8 text ("),
    ("convert widerface --images photos --annotations bad.mat --output o", "bad.mat: not a Matlab file of version 5"),
    ("convert widerface --images photos --annotations other.mat --output o", "other.mat: has no field 'event_list'"),
    ("convert widerface --images photos --annotations twice.txt --output o", "lists 'a.png' twice; remove one"),
    ("convert widerface --images photos --annotations short.txt --output o", "numbers (x y w h"),
    (
        "convert custom --images photos --annotations labels.csv --output o --classes x",
        "no face has class ['x']. Classes in the labels",
    ),
    ("convert custom --images photos --annotations latin.csv --output o", "latin.csv:2: expected UTF-8 text (invalid"),
    ("convert custom --images photos --annotations odd.json --output o", "not coco labels as docs/data.md describes"),
    ("convert custom --images photos --annotations lost.json --output o", "its image_id 7 is not among the images"),
    ("convert custom --images photos --annotations xml --output o", "xml/a.xml: not XML ("),
    (
        "convert widerface --images photos --annotations words.txt --output o",
        "expected 4 numbers. Received: ['a'",
    ),
    (
        "convert widerface --images photos --annotations nan.txt --output o",
        "finite numbers. Received: ['1', '1', 'nan'",
    ),
    (
        "convert custom --images photos --annotations words.csv --output o",
        "expected 4 numbers. Received: ['a', 'b'",
    ),
    (
        "convert custom --images photos --annotations nan.csv --output o",
        "expected 4 finite numbers. Received: ['1', ",
    ),
    ("convert custom --images two --annotations yolo --output o", "2 photos have this name; YOLO text can't say which"),
    ("convert custom --images photos --annotations twice.json --output o", "labels 'a.png' twice. Remove one"),
    (
        "convert custom --images photos --annotations big.csv --output o --strict",
        "a.png: clipped (face 1: x 1 y 1",
    ),
    (f"evaluate photos {FACES}", "--images is only used with a model: add --preset or --model"),
    (
        f"evaluate photos {FACES} --worst 3",
        "--worst needs --plots DIR for the pictures and --images DIR with the photos",
    ),
    (
        "evaluate photos --ground-truth labels.csv --detections found --subset x",
        "subset must be one of ['all'] for",
    ),
    ("evaluate photos --ground-truth short.txt --detections found", "short.txt:2: expected 4 or 19 or 20 numbers"),
    ("evaluate photos --ground-truth other.csv --detections found", "other.csv: expected a header with file and x1"),
    ("evaluate photos --ground-truth words.csv --detections found", "words.csv:2: x1 y1 x2 y2: expected 4 numbers"),
    ("evaluate photos --ground-truth bad.json --detections found", "bad.json: not JSON (line 1"),
    (
        f"evaluate photos --ground-truth faces.csv --images empty --detections d {MODEL}",
        "none of the 1 photos was found",
    ),
    (
        "evaluate photos --ground-truth faces.csv --detections empty",
        "photos has a file in empty: expected event/photo",
    ),
    ("evaluate photos --ground-truth faces.csv --detections broken", "Expected a name, a count, then `x y w h score`"),
    ("evaluate widerface --ground-truth mats --detections found", "wider_face_val.mat: not a Matlab file of version 5"),
    ("evaluate widerface --ground-truth mat --detections found", "has no field 'event_list'. Expected Ret"),
    ("evaluate landmarks --ground-truth mixed.csv --predictions p.csv", "some lines have a box and some have none"),
    ("evaluate landmarks --format aflw --ground-truth none.db --predictions p.csv", "no AFLW database at none.db"),
    ("evaluate landmarks --format pts --ground-truth empty --predictions p.csv", "no .pts file in empty"),
    (
        "evaluate landmarks --ground-truth five.csv --predictions p.csv",
        "has no prediction for 'a.png' (1 photos): name",
    ),
    (
        f"evaluate landmarks --ground-truth five.csv --predictions p.csv --images empty {MODEL}",
        "empty has no file 'a.png', which the ground truth names (1 of 1 photos are missing): give the folder",
    ),
    ("evaluate landmarks --ground-truth five.csv --predictions short.csv", "expected file, number and ten coordinates"),
    ("evaluate fddb --ground-truth folds --detections blocks.txt", "blocks.txt:3: a row of 'a': expected 5 finite"),
    ("evaluate fddb --ground-truth folds --detections short.txt", "a count, then that many lines of 5 numbers"),
    (
        "evaluate verification --embeddings e.npy --templates t.txt --pairs p.txt",
        "e.npy has 2 rows, t.txt has 1 images",
    ),
    ("evaluate verification --embeddings t.txt --templates t.txt --pairs p.txt", "t.txt: not a .npy file of numbers ("),
    ("evaluate verification --embeddings e.npy --templates empty.txt --pairs p.txt", "empty.txt is empty: expected"),
    (
        "evaluate verification --embeddings f.npy --templates t.txt --pairs far.txt",
        "a pair names template 9, which has",
    ),
    (f"export saved_model {MODEL} --size 64x64 --output o", "a SavedModel takes images of any size: leave --size out"),
    (f"export saved_model {MODEL} --output faces.csv", "faces.csv: exists, and is a file. Expected the folder for"),
    (f"export onnx {MODEL} --output photos", "--output must end in .onnx. Received: photos"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small files, most of them wrong in one way."""
    from scipy.io import savemat

    here = tmp_path_factory.mktemp("errors")
    text = {
        "bad.mp4": "hello",
        "bad.keras": "hello",
        "old.onnx": "hello",
        "bad.parquet": "hello",
        "bad.mat": "hello",
        "bad.json": "{",
        "mats/wider_face_val.mat": "hello",
        "xml/a.xml": "<annotation>",
        "yolo/a.txt": "0 .5 .5 .1 .1\n",
        "old/manifest.json": json.dumps({"format": 9}),
        "bare/manifest.json": json.dumps(
            {"format": 1, "complete": True, "counts": {"photos": 0, "faces": 0}, "shards": [], "options": {"shards": 0}}
        ),
        "bare/a.tfrecord": "x",
        "labels.csv": "file,x1,y1,x2,y2,label\na.png,1,1,9,9,face\n",
        "faces.csv": "file,x1,y1,x2,y2\na.png,1,1,9,9\n",
        "big.csv": "file,x1,y1,x2,y2\na.png,1,1,999,9\n",
        "words.csv": "file,x1,y1,x2,y2\na.png,a,b,c,d\n",
        "other.csv": "file,left\na.png,1\n",
        "short.csv": "file,x1,y1,x2,y2\na.png,1,1\n",
        "eyes.csv": "file,left_eye_x,left_eye_y,right_eye_x,right_eye_y\na.png,10,10,20,10\n",
        "five.csv": f"a.png,{','.join('1' * 10)}\n",
        "mixed.csv": f"a.png,{','.join('1' * 10)}\na.png,{','.join('1' * 14)}\n",
        "label.txt": "# x.png\n1 1 9 9\n",
        "twice.txt": "# a.png\n1 1 9 9\n# a.png\n1 1 9 9\n",
        "short.txt": "# a.png\n1 1 9\n",
        "nan.txt": "# a.png\n1 1 nan 9\n",
        "words.txt": "# a.png\na b c d\n",
        "nan.csv": "file,x1,y1,x2,y2\na.png,1,nan,9,9\n",
        "blocks.txt": "a\n1\n1 1 nan 9 1\n",
        "found/a.txt": "a\n0\n",
        "broken/a.txt": "a\n3\n1 1 9 9 1\n",
        "folds/FDDB-fold-01-ellipseList.txt": "a\n1\n9 5 0 20 20  1\n",
        "t.txt": "a 1 1\n",
        "p.txt": "1 1 1\n",
        "far.txt": "1 9 1\n",
        "empty.txt": "",
        "odd.json": json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [3]}),
        "lost.json": json.dumps({"images": [], "annotations": [{"image_id": 7}]}),
        "twice.json": json.dumps({"images": [{"id": i, "file_name": "a.png"} for i in (1, 2)], "annotations": []}),
    }
    for name, content in text.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content)
    (here / "latin.csv").write_bytes(b"file,x1,y1,x2,y2\n\xe9.png,1,1,9,9\n")
    (here / "empty").mkdir()
    for name in ("photos/a.png", "two/a.png", "two/a.jpg"):
        (here / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), "green").save(here / name)
    for number in range(2, 11):
        (here / f"folds/FDDB-fold-{number:02}-ellipseList.txt").write_text("")
    np.save(here / "e.npy", np.ones((2, 4), np.float32))
    np.save(here / "f.npy", np.ones((1, 4), np.float32))
    (here / "mat").mkdir()
    for name in ("other.mat", "mat/wider_face_val.mat"):
        savemat(here / name, {"x": 1})
    return here


@pytest.fixture
def in_folder(folder, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    shutil.copytree(folder, tmp_path / "here")
    (tmp_path / "here/round").symlink_to("round")
    os.mkfifo(tmp_path / "here/pipe.mp4")
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(("command", "line"), ROWS, ids=[row[0] for row in ROWS])
def test_line(command, line, in_folder, one_model, capsys):
    if " batch" in f" {command}":
        pytest.importorskip("ray")
    if "mp4" in command or "--camera" in command:
        pytest.importorskip("av")
    words = command.split()
    code = cli.main([*words, "--quiet"] if words[0] in ("label", "batch", "convert") else words)
    err = capsys.readouterr().err.strip()
    assert code == 2
    assert line in err.splitlines()[-1]
    assert "Traceback" not in err
