"""Foreign files of text: JSON in every place that takes it, labels in every format, detections and topologies."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .harness import PHOTO, Row, as_json, damaged, mutated, workplace

SHARD = {"file": "faces-00000-of-00001.tfrecord", "bytes": 0, "sha256": "0" * 64, "photos": 1, "faces": 1}
MANIFEST = {
    "format": 1,
    "complete": True,
    "source": {"fingerprint": "0"},
    "options": {"shards": 1, "min_face": 0},
    "counts": {"photos": 1, "faces": 1, "problems": {"missing_photo": 0}},
    "shards": [{**SHARD, "faces_with_landmarks": 1, "turned": 0, "problems": [["a.jpg", "empty_box", "no area"]]}],
}
FACE = {"box": [1.0, 2.0, 30.0, 40.0], "score": 0.9, "landmarks": [[5.0, 6.0]] * 5}
REPORT = [
    {"file": "a.jpg", "width": 512, "height": 512, "faces": [FACE]},
    {"file": "b.jpg", "width": None, "height": None, "error": "b.jpg: no such file"},
]
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 512, "height": 512}, {"id": 2, "file_name": "b/c.jpg"}],
    "categories": [{"id": 1, "name": "face"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [173, 57, 105, 120], "iscrowd": 0, "area": 12600},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2] * 5},
    ],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [173.0, 57.0, 105.0, 120.0], "score": 0.9}]
CSV = "file,x1,y1,x2,y2,label\na.jpg,173,57,278,177,face\na.jpg,1,2,30,40,face\nb/c.jpg,5,6,70,80,face\n"
XML = """<?xml version="1.0" encoding="UTF-8"?><annotation><filename>a.jpg</filename><size><width>512</width>
<height>512</height><depth>3</depth></size><object><name>face</name><bndbox><xmin>173</xmin><ymin>57</ymin>
<xmax>278</xmax><ymax>177</ymax></bndbox></object></annotation>"""
YOLO = "0 0.44 0.23 0.2 0.23\n0 0.1 0.1 0.05 0.05\n"
WIDER = (
    "0--Parade/a.jpg\n2\n173 57 105 120 0 0 0 0 0 0\n1 2 30 40 0 0 0 0 0 0\n0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
)
LABEL = "# 0--Parade/a.jpg\n173 57 105 120 204 100 0 247 102 0 223 129 0 203 139 0 244 141 0 0.8\n# b.jpg\n1 2 3 4\n"
LIST = "a.jpg 173 278 57 177 204 100 247 102 223 129 203 139 244 141\n"
PTS = "version: 1\nn_points: 68\n{\n" + "\n".join(f"{x} {x + 1}" for x in range(68)) + "\n}\n"
FOUND = "a\n2\n173 57 105 120 0.9\n1 2 30 40 0.5\n"
BLOCKS = "0--Parade/a\n2\n173 57 105 120 0 1\n1 2 30 40 0.5 1\n"
OBJ = "v -1 0 0\nv 1 0 0\nv 0 1 0.5\nv 0 -1 0.5\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\nf 1 4 2\n"
ENCODINGS = ("rot13", "zip", "idna", "utf-16", "utf-7", "cp037", "undefined", "unicode_escape", "big5", "x" * 60)


def check_annotations(annotations: Any) -> None:
    """What every reader promises of annotations."""
    from retinaface_tf.annotations.text import is_below

    assert len(set(annotations.files)) == len(annotations.files) > 0
    assert all(is_below(file) for file in annotations.files), annotations.files
    boxes = annotations.boxes
    assert np.isfinite(boxes[~np.isnan(boxes).all(axis=1)]).all()
    assert np.isfinite(annotations.landmarks).all()
    assert (annotations.sizes >= 0).all()


def check_report(entries: list[dict[str, Any]]) -> None:
    for one in entries:
        assert isinstance(one["file"], str)
        assert ("faces" in one) or isinstance(one["error"], str)
        for face in one.get("faces", []):
            assert np.isfinite(face["box"]).all() and 0 <= face["score"] <= 1


def check_found(found: Any) -> None:
    assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()


def foreign_json(chance: random.Random, count: int) -> Iterator[Row]:
    """JSON that others wrote, changed in its structure, its numbers, its names and its bytes."""
    from retinaface_tf import presets
    from retinaface_tf.annotations.read import read_annotations
    from retinaface_tf.common.run_folder import begin_or_resume
    from retinaface_tf.data.manifest import open_shards
    from retinaface_tf.dense.topology import Topology
    from retinaface_tf.evaluation.evaluate import load_detections
    from retinaface_tf.evaluation.teacher import read_looks
    from retinaface_tf.inference import artifact
    from retinaface_tf.inference.report import read_report

    card = json.loads((presets.FOLDER / "mobilenet025" / presets.CARD).read_text("utf-8"))
    card["weights"] = {"file": "weights.npz", "sha256": "0" * 64}
    metadata = _artifact_metadata()
    look = {"file": "a.jpg", "boxes": [[1, 2, 3, 4]], "scores": [0.9], "landmarks": [[[1, 2]] * 5], "spread": [None]}
    topology = {"vertices": [[-1, 0, 0], [1, 0, 0], [0, 1, 0]], "triangles": [[0, 1, 2]]}
    with workplace() as here:
        (here / "shards").mkdir()
        (here / "shards" / SHARD["file"]).touch()
        (here / "run").mkdir()
        Path("coco.json").write_text(json.dumps(COCO))

        def check_card(found: dict[str, Any]) -> None:
            assert found["folder"] == Path("shards")
            for name, (path, _) in presets.artifacts(found).items():
                assert path.parent == Path("shards"), name

        targets: dict[str, tuple[Any, str, Callable[[Path], Any], Callable[[Any], object] | None]] = {
            "manifest": (MANIFEST, "shards/manifest.json", lambda p: open_shards(p.parent), None),
            "preset card": (card, "shards/preset.json", lambda p: presets.load(p.parent), check_card),
            "artifact metadata": (metadata, "m.json", lambda p: artifact.parse(p.read_bytes(), p), _check_metadata),
            "report to resume": (REPORT, "r.json", read_report, check_report),
            "COCO labels": (COCO, "c.json", read_annotations, check_annotations),
            "COCO results": (
                RESULTS,
                "d.json",
                lambda p: load_detections(p, read_annotations("coco.json"), "coco.json"),
                lambda found: [check_found(one) for one in found.values()],
            ),
            "run.json": ({"a": 1, "b": {"c": 2}}, "run/run.json", lambda p: begin_or_resume(p.parent, {"a": 1}), None),
            "looks of a teacher": (look, "looks.jsonl", _with_line(read_looks), None),
            "topology in a card": (topology, "t.json", lambda p: Topology.from_dict(json.loads(p.read_bytes())), None),
        }
        for kind, (good, name, read, check) in targets.items():
            row = Row(f"JSON: {kind}")
            for number in range(count):
                content = as_json(mutated(good, chance), chance)
                Path(name).write_bytes(content)
                if kind == "topology in a card" and not _is_dict(content):
                    continue
                row.attempt(f"{number} {content[:120]!r}", lambda read=read, name=name: read(Path(name)), check)
            yield row


def _is_dict(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _with_line(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def call(path: Path) -> Any:
        with path.open("ab") as file:
            file.write(b"\n")
        return read(path)

    return call


def _artifact_metadata() -> dict[str, Any]:
    from retinaface_tf import load

    return load("mobilenet025_wider", threads=1).metadata


def _check_metadata(found: dict[str, Any]) -> None:
    from types import SimpleNamespace

    from retinaface_tf.inference.predictor import Detector

    Detector(SimpleNamespace(metadata=found))  # type: ignore[arg-type]
    assert 0 <= found["score_threshold"] <= 1 and found["max_detections"] >= 1
    assert found["input"]["size"] is None or min(found["input"]["size"]) > 0


def labels(chance: random.Random, count: int) -> Iterator[Row]:
    """Label files in every format: bytes replaced, other encodings, marks, nasty numbers and names."""
    from retinaface_tf.annotations.fddb import read_blocks
    from retinaface_tf.annotations.landmark_sets import read_pts_file
    from retinaface_tf.annotations.read import read_annotations
    from retinaface_tf.dense.topology import Topology
    from retinaface_tf.evaluation.detection_files import read_detection_file
    from retinaface_tf.evaluation.teacher import read_points

    def folder(path: Path) -> Any:
        return read_annotations(path.parent, "photos")

    with workplace() as here:
        for name in ("photos", "voc", "yolo", "pts"):
            (here / name).mkdir()
        shutil.copy(PHOTO, here / "photos" / "a.jpg")
        targets: dict[str, tuple[str, str, Callable[[Path], Any], Callable[[Any], object] | None]] = {
            "CSV": (CSV, "l.csv", read_annotations, check_annotations),
            "Pascal VOC": (XML, "voc/a.xml", folder, check_annotations),
            "YOLO": (YOLO, "yolo/a.txt", folder, check_annotations),
            "WIDER FACE bbx_gt.txt": (WIDER, "w.txt", read_annotations, check_annotations),
            "WIDER FACE label.txt": (LABEL, "l.txt", read_annotations, check_annotations),
            "five-point list": (LIST, "list.txt", read_annotations, check_annotations),
            "300-W .pts": (PTS, "pts/a.pts", folder, check_annotations),
            ".pts of 68 points": (
                PTS,
                "a.pts",
                read_pts_file,
                lambda points: np.testing.assert_(np.isfinite(points).all()),
            ),
            "result file": (FOUND, "f.txt", read_detection_file, check_found),
            "FDDB blocks": (BLOCKS, "b.txt", lambda p: read_blocks(p, 6), _check_blocks),
            "points of heads": ("file,x,y\na.jpg,1,2\n", "p.csv", read_points, None),
            "Wavefront OBJ": (OBJ, "t.obj", Topology.load, lambda mesh: np.testing.assert_(len(mesh) >= 3)),
        }
        for kind, (good, name, read, check) in targets.items():
            row = Row(f"labels: {kind}")
            read(_written(name, good.encode()))  # the good file is one
            for number in range(count):
                content = _damaged_text(good, chance)
                row.attempt(f"{number} {content[:100]!r}", partial(read, _written(name, content)), check)
            yield row
        yield _matlab(chance, count)
        yield _sqlite(chance, count)


def _written(name: str, content: bytes) -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


WORDS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e308",
        "-1",
        "0",
        "",
        " ",
        "１",
        "1_0",
        "0x1",
        "9" * 400,
        "1e-400",
        "\0",
        "\u2028",
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "C:/a.jpg",
        "a" * 5000,
        "=1+1",
        '"',
        "'",
        "<",
        "&lol;",
        "\ufeff",
        "\ud83d\ude00",
    ),
    *(
        "]]>",
        "<a>" * 50_000,
        ",",
        ",,,,",
        "#",
        "{",
        "}",
        "\r",
        "\n\n",
        "-0.0",
        "face",
        "写真.jpg",
        "a\\..\\b.jpg",
        "\x1b[2J",
    ),
)


def _damaged_text(good: str, chance: random.Random) -> bytes:
    kind = chance.randrange(10)
    if kind < 4:  # a word replaced
        words = good.replace(",", " , ").replace(">", "> ").replace("<", " <").split(" ")
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        content = " ".join(words).replace(" , ", ",").replace("> ", ">").replace(" <", "<")
        return content.encode("utf-8", "surrogatepass")
    if kind == 4:
        lines = good.splitlines(keepends=True)
        lines.insert(chance.randrange(len(lines) + 1), chance.choice((*lines, chance.choice(WORDS) + "\n")))
        return "".join(lines).encode("utf-8", "surrogatepass")
    if kind == 5 and "encoding=" in good:
        content = good.replace("UTF-8", chance.choice(ENCODINGS))
        return content.encode()
    if kind == 6 and "<annotation>" in good:
        entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
        extra = chance.choice(
            (f'<!DOCTYPE a [<!ENTITY l0 "x">{entities}]>', '<!DOCTYPE a SYSTEM "file:///etc/passwd">')
        )
        return good.replace("<annotation>", f"{extra}<annotation>").replace("a.jpg", "&l11;").encode()
    return damaged(good.encode(), chance)


def _check_blocks(blocks: dict[str, np.ndarray]) -> None:
    from retinaface_tf.annotations.text import is_below

    assert all(is_below(name) for name in blocks)
    assert all(np.isfinite(rows).all() for rows in blocks.values())


def _matlab(chance: random.Random, count: int) -> Row:
    from scipy.io import savemat

    from retinaface_tf.annotations.read import read_annotations

    row = Row("labels: WIDER FACE .mat")

    def cells(items: list[Any]) -> np.ndarray:
        result = np.empty((len(items), 1), object)
        for index, item in enumerate(items):
            result[index, 0] = item
        return result

    for number in range(count):
        name = chance.choice(("a", "../../../tmp/x", "/etc/passwd", "b" * 3000, "C:/x", "a"))
        box = chance.choice(([[1.0, 2, 3, 4]], [[1.0, 2, 3]], [[np.nan] * 4], [[1e308] * 4], [], [[1.0, 2, 3, 4]]))
        content = {
            "event_list": cells([chance.choice(("0--Parade", "..", "/tmp", "0--Parade"))]),
            "file_list": cells([cells([name])]),
            "face_bbx_list": cells([cells([np.array(box)])]),
        }
        savemat("w.mat", content, do_compression=chance.random() < 0.5)
        data = Path("w.mat").read_bytes()
        path = _written("w.mat", damaged(data, chance) if chance.random() < 0.6 else data)
        row.attempt(f"{number} {name[:20]} {box}", lambda p=path: read_annotations(p), check_annotations)
    return row


AFLW = """
CREATE TABLE Faces (face_id INTEGER, file_id TEXT);
CREATE TABLE FaceImages (file_id TEXT, filepath TEXT);
CREATE TABLE FaceRect (face_id INTEGER, x REAL, y REAL, w REAL, h REAL);
CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL);
CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT);
INSERT INTO Faces VALUES (1, 'a'); INSERT INTO FaceImages VALUES ('a', '0/a.jpg');
INSERT INTO FaceRect VALUES (1, 1, 2, 30, 40);
INSERT INTO FeatureCoordTypes VALUES (1, 'LeftEyeCenter'); INSERT INTO FeatureCoords VALUES (1, 1, 5, 6);
"""
STATEMENTS = (
    "UPDATE FaceImages SET filepath = '../../etc/passwd'",
    "UPDATE FaceImages SET filepath = x'00ff'",
    "UPDATE FaceImages SET filepath = 3",
    "UPDATE FaceRect SET x = 'nan'",
    "UPDATE FaceRect SET w = 9e999",
    "UPDATE FeatureCoords SET x = x'ff'",
    "UPDATE FaceRect SET x = NULL",
    "DROP TABLE Faces",
    "DROP TABLE FaceRect; CREATE VIEW FaceRect AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
    "SELECT 1 AS face_id, n AS x, n AS y, n AS w, n AS h FROM r",
    "DROP TABLE FaceImages; CREATE VIEW FaceImages AS SELECT 'a' AS file_id, hex(zeroblob(900000000)) AS filepath",
    "INSERT INTO Faces SELECT 1, 'a' FROM Faces",
)


def _sqlite(chance: random.Random, count: int) -> Row:
    from retinaface_tf.annotations.read import read_annotations

    row = Row("labels: AFLW's SQLite")
    for number in range(count):
        path = Path("a.sqlite")
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as database:
            database.executescript("PRAGMA synchronous = OFF;" + AFLW)
            statement = STATEMENTS[number % len(STATEMENTS)]
            database.executescript(statement)
        database.close()
        if chance.random() < 0.4:
            _written("a.sqlite", damaged(path.read_bytes(), chance))
        row.attempt(f"{number} {statement[:60]}", lambda p=path: read_annotations(p), check_annotations)
    return row
