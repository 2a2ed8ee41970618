"""The same faces from COCO, VOC, YOLO and CSV; and one clear line for what is wrong with a file."""

import csv
import json

import numpy as np
import pytest
import wider_tree

from retinaface_tf.annotations.read import guess_kind, read_annotations
from retinaface_tf.common.types import LANDMARK_NAMES, NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.cleaning import clean, read_photo

# Photos are 120 x 100. Photo -> (box xyxy, five (x, y) or None)
FACES = {
    "a.jpg": [((12, 20, 60, 80), [(24, 40), (48, 40), (36, 50), (27, 60), (45, 60)]), ((6, 5, 18, 25), None)],
    "sub/b.jpg": [((30, 10, 90, 70), None)],
    "sub/c.jpg": [],
}
LANDMARKS_IN = {"coco", "yolo", "csv"}


def write_coco(folder):
    images, annotations = [], []
    for number, (name, faces) in enumerate(FACES.items(), 7):
        images.append({"id": number, "file_name": name, "width": 120, "height": 100})
        for (x1, y1, x2, y2), points in faces:
            one = {"id": len(annotations), "image_id": number, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            if points:
                one["keypoints"] = [v for i, (x, y) in enumerate(points) for v in (x, y, 1 if i == 4 else 2)]
            annotations.append(one)
    annotations.append({"id": 98, "image_id": 7, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 9, 9]})
    annotations.append({"id": 99, "image_id": 7, "category_id": 4, "bbox": [0, 0, 9, 9]})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 3, "name": "face"}, {"id": 4, "name": "hand"}]
    (folder / "faces.json").write_text(json.dumps(content))
    return folder / "faces.json", ["face"]


def write_voc(folder):
    def one(name, box):
        sides = "".join(f"<{side}>{v}</{side}>" for side, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"

    for name, faces in FACES.items():
        path = folder / "xml" / name.replace(".jpg", ".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        objects = "".join(one("face", box) for box, _ in faces) + one("hand", (0, 0, 9, 9))
        size = "<size><width>120</width><height>100</height><depth>3</depth></size>"
        name = name.split("/")[-1]
        path.write_text(f"<annotation><filename>{name}</filename>{size}{objects}</annotation>")
    return folder / "xml", ["face"]


def write_yolo(folder):
    (folder / "labels" / "sub").mkdir(parents=True)
    for name, faces in FACES.items():
        lines = ["5 0.5 0.5 0.1 0.1"]
        for (x1, y1, x2, y2), points in faces:
            words = [0, (x1 + x2) / 240, (y1 + y2) / 200, (x2 - x1) / 120, (y2 - y1) / 100]
            for i, (x, y) in enumerate(points or []):
                words += [x / 120, y / 100, 1 if i == 4 else 2]
            lines.append(" ".join(map(str, words)))
        if faces:  # c.jpg has no text
            (folder / "labels" / name.replace(".jpg", ".txt")).write_text("\n".join(lines))
    (folder / "labels" / "classes.txt").write_text("face\nhand\n")
    return folder / "labels", ["0"]


def write_csv(folder):
    columns = [f"{name}_{what}" for name in LANDMARK_NAMES for what in ("x", "y", "visible")]
    with (folder / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "width", "height", "x1", "y1", "x2", "y2", "label", *columns])
        for name, faces in FACES.items():
            for box, points in faces:
                values = [v for i, (x, y) in enumerate(points) for v in (x, y, int(i != 4))] if points else [""] * 15
                writer.writerow([name, 120, 100, *box, "face", *values])
            if not faces:
                writer.writerow([name, 120, 100, *[""] * 5, *[""] * 15])
        writer.writerow(["a.jpg", 120, 100, 0, 0, 9, 9, "hand", *[""] * 15])
    return folder / "faces.csv", ["face"]


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo, "csv": write_csv}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_faces(kind, tmp_path):
    wider_tree.make_photos(tmp_path / "photos", list(FACES))
    annotations, classes = WRITERS[kind](tmp_path)
    assert guess_kind(annotations) == kind
    records = list(read_annotations(annotations, tmp_path / "photos", classes=classes, pixels=False).by_name())
    assert [record.files[0] for record in records] == sorted(FACES)
    for record in records:
        kept, problems = clean(record, read_photo(tmp_path / "photos" / record.files[0]))
        assert problems == []
        kept = kept.select(~kept.ignore)  # COCO's crowd region
        faces = FACES[record.files[0]]
        np.testing.assert_allclose(kept.boxes, np.reshape([box for box, _ in faces], (-1, 4)))
        for face, (_, points) in enumerate(faces):
            if points and kind in LANDMARKS_IN:
                np.testing.assert_allclose(kept.landmarks[face], points)
                assert kept.visible[face].tolist() == [VISIBLE] * 4 + [OCCLUDED]
            else:
                assert (kept.visible[face] == NOT_LABELED).all()


@pytest.mark.parametrize("kind", WRITERS)
def test_without_classes_everything_is_a_face(kind, tmp_path):
    wider_tree.make_photos(tmp_path / "photos", list(FACES))
    annotations, _ = WRITERS[kind](tmp_path)
    hands = {"coco": 1, "voc": 3, "yolo": 2, "csv": 1}[kind]
    assert (~read_annotations(annotations, tmp_path / "photos").ignore).sum() == 3 + hands
    with pytest.raises(ValueError, match=r"no face has class \['foot'\]"):
        read_annotations(annotations, tmp_path / "photos", classes=["foot"])


def test_yolo_pairs_without_flags_and_csv_forms(tmp_path):
    wider_tree.make_photos(tmp_path / "photos", ["a.jpg"])
    (tmp_path / "labels").mkdir()
    pairs = "0.1 0.2 0.3 0.4 0 0 0.5 0.6 0.7 0.8"
    (tmp_path / "labels/a.txt").write_text(f"0 0.5 0.5 0.2 0.2 {pairs}\n")
    record = read_annotations(tmp_path / "labels", tmp_path / "photos")
    assert record.visible[0].tolist() == [VISIBLE, VISIBLE, NOT_LABELED, VISIBLE, VISIBLE]
    for header, values in [("filename,xmin,ymin,xmax,ymax", "1,2,4,6"), ("image,x,y,w,h", "1,2,3,4")]:
        (tmp_path / "faces.csv").write_text(f"{header}\na.jpg,{values}\n")
        assert read_annotations(tmp_path / "faces.csv").boxes.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "expected COCO JSON"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"images": []}', "no 'annotations'"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1}]}', "image_id 1 is not among"),
        ("a.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}', "bbox of x y w h"),
        (
            "a.json",
            '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1,2,3,4], "keypoints": [1,2,2]}]}',
            "expected five keypoints",
        ),
        ("a.json", '{"images": [{"id": 1, "file_name": "/etc/x.jpg"}], "annotations": []}', "below the images folder"),
        ("a.csv", "file,left_eye_x\na.jpg,3\n", "one of left_eye_x and left_eye_y"),
        ("a.csv", "file,x1,y1,x2,y2\na.jpg,1,2,three,4\n", ":2: x1 y1 x2 y2: expected 4 numbers"),
        ("a.csv", "file,x1,y1,x2,y2\n../a.jpg,1,2,3,4\n", ":2: expected the name of a photo"),
        ("xml/a.xml", "<annotation>", "not XML"),
        ("xml/a.xml", "<html/>", "expected a Pascal VOC"),
        ("xml/a.xml", "<annotation><object><name>f</name></object></annotation>", "object 1: bndbox"),
        ("txt/a.txt", "0 0.1 0.2\n", "a.txt:1: .*expected 5, 15 or 20 numbers"),
        ("txt/a.txt", "0 a b c d\n", "expected 4 numbers"),
    ],
)
def test_bad_files_are_one_clear_line(name, text, message, tmp_path):
    wider_tree.make_photos(tmp_path / "photos", ["a.jpg"])
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    annotations = path.parent if "/" in name else path
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(annotations, tmp_path / "photos")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_unknown_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_annotations(tmp_path / "none.json", tmp_path)
    with pytest.raises(ValueError, match=r"expected a \.json"):
        read_annotations(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="`kind` must be one of"):
        read_annotations(tmp_path, tmp_path, kind="pdf")


def test_any_json_and_any_bytes_give_one_clear_line(tmp_path):
    """Values of every wrong type at every place, and files that are no text."""
    good = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 120, "height": 100}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2] * 5}],
        "categories": [{"id": 1, "name": "face"}],
    }
    path, refused = tmp_path / "a.json", 0
    for wrong in (None, 7, "word", [], [1], {}, {"a": 1}, [None], True):
        for key in good:
            for entry in (wrong, [wrong], *([{**good[key][0], field: wrong}] for field in good[key][0])):
                path.write_text(json.dumps({**good, key: entry}))
                try:
                    read_annotations(path, tmp_path)
                except ValueError as error:
                    assert "\n" not in str(error) and str(path) in str(error)
                    refused += 1
    assert refused > 80
    for name in ("b.json", "b.csv", "xml/b.xml", "txt/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xfe\x00\x01file,x1" * 40)
        with pytest.raises(ValueError) as caught:
            read_annotations(path.parent if "/" in name else path, tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
