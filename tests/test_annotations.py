"""One type for all labels: what `convert` takes, `evaluate`, validation and `label` take; nothing hostile gets in."""

import json
import os
import unicodedata

import numpy as np
import pytest
import scipy.io
import wider_tree
from PIL import Image

from retinaface_tf.annotations.annotations import annotate_photo, join, unique_names
from retinaface_tf.annotations.csv import write_csv
from retinaface_tf.annotations.fddb import read_blocks
from retinaface_tf.annotations.read import find_photos, guess_kind, read_annotations
from retinaface_tf.cli.main import main
from retinaface_tf.common.types import OCCLUDED, VISIBLE
from retinaface_tf.data.shards import split_annotations

# The face of the bundled photo: box, and five landmarks.
BOX = [178.0, 57.0, 273.0, 177.0]
NME = pytest.approx(0.13923, abs=1e-3)  # of the points below, put down by eye
POINTS = [[203, 105], [245, 103], [226, 129], [209, 149], [243, 147]]


def test_names_are_stems_unless_two_photos_share_one():
    assert unique_names(["e/a.jpg", "b.png"]) == ("e/a", "b")
    assert unique_names(["a.jpg", "a.png", "b.jpg"]) == ("a.jpg", "a.png", "b")
    assert unique_names(["a.jpg", "a.jpg.png"]) == ("a", "a.jpg.png")


def test_photos_are_taken_joined_and_sorted_with_their_faces():
    both = join([annotate_photo("b.jpg", [[1, 2, 3, 4], [5, 6, 7, 8]], classes=["x", "y"]), annotate_photo("a.jpg")])
    assert (both.files, both.names, both.image.tolist()) == (("b.jpg", "a.jpg"), ("b", "a"), [0, 0])
    turned = both.by_name()
    assert turned.files == ("a.jpg", "b.jpg") and turned.image.tolist() == [1, 1]
    assert [photo.num_faces for photo in turned] == [0, 2]
    assert both.select(both.classes == "y").boxes.tolist() == [[5, 6, 7, 8]]
    assert both.only(["a"]).num_faces == 0 and len(both.take([])) == 0
    pixels = annotate_photo("a.jpg", [[0.1, 0.5, 0.2, 1]], normalized=True).to_pixels({"a": (100, 10)})
    np.testing.assert_allclose(pixels.boxes, [[10, 5, 20, 10]])


def write_photos(folder, photo):
    """The bundled photo twice, once as PNG and mirrored."""
    folder.mkdir()
    picture = Image.open(photo)
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "a.png")
    return {"a.jpg": (BOX, POINTS), "a.png": ([512 - BOX[2], BOX[1], 512 - BOX[0], BOX[3]], None)}


def as_csv(folder, faces):
    columns = [f"{n}_{axis}" for n in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"]
    rows = ["file,x1,y1,x2,y2," + ",".join(columns)]
    for name, (box, points) in faces.items():
        cells = [value for point in points for value in point] if points else [""] * 10
        rows.append(",".join(map(str, [name, *box, *cells])))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def as_coco(folder, faces):
    images = [{"id": number, "file_name": name} for number, name in enumerate(faces)]
    annotations = []
    for number, ((x1, y1, x2, y2), points) in enumerate(faces.values()):
        one = {"image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        annotations.append(one | ({"keypoints": [v for x, y in points for v in (x, y, 2)]} if points else {}))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def as_voc(folder, faces):
    (folder / "xml").mkdir()
    for number, (name, (box, _)) in enumerate(faces.items()):
        sides = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        text = f"<annotation><filename>{name}</filename><object><name>face</name><bndbox>{sides}</bndbox></object>"
        (folder / "xml" / f"{number}.xml").write_text(text + "</annotation>")
    return folder / "xml"


def as_yolo(folder, faces):
    (folder / "txt").mkdir()
    for name, ((x1, y1, x2, y2), points) in faces.items():
        words = [0, (x1 + x2) / 1024, (y1 + y2) / 1024, (x2 - x1) / 512, (y2 - y1) / 512]
        words += [value for x, y in points or () for value in (x / 512, y / 512, 2)]
        (folder / "txt" / f"{name[:-4]}.txt").write_text(" ".join(map(str, words)) + "\n")
    return folder / "txt"


def as_label_txt(folder, faces):
    boxes = {name: [((x1, y1, x2 - x1, y2 - y1), p and [(*q, 0) for q in p])] for name, ((x1, y1, x2, y2), p) in
             faces.items()}  # fmt: skip
    return wider_tree.write_label(folder / "label.txt", boxes)


def as_bbx(folder, faces):
    boxes = {name: [((x1, y1, x2 - x1, y2 - y1), None)] for name, ((x1, y1, x2, y2), _) in faces.items()}
    return wider_tree.write_bbx(folder / "wider_face_val_bbx_gt.txt", boxes)


WRITERS = {"csv": as_csv, "coco": as_coco, "voc": as_voc, "yolo": as_yolo, "label": as_label_txt, "bbx": as_bbx}


@pytest.mark.parametrize("form", WRITERS)
def test_what_convert_takes_evaluate_validation_and_label_take(form, tmp_path, sample_photo, one_model, capsys):
    from retinaface_tf.training.validation import Validation

    faces = write_photos(tmp_path / "photos", sample_photo)
    if form == "yolo":  # a text is of one photo
        (tmp_path / "photos" / "a.png").rename(tmp_path / "photos" / "b.png")
        faces["b.png"] = faces.pop("a.png")
    labels, images = str(WRITERS[form](tmp_path, faces)), str(tmp_path / "photos")
    command = "widerface" if form in ("label", "bbx") else "custom"
    where = ["--images", images, "--annotations", labels, "--output"]
    assert main(["convert", command, *where, str(tmp_path / "shards"), "--workers", "1", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("2 photos with 2 faces")
    model = ["--images", images, "--preset", "mobilenet025_wider", "--quiet", "--json", "-"]
    found = str(tmp_path / "found")
    assert main(["evaluate", "photos", "--ground-truth", labels, "--detections", found, *model]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["photos"], result["photos_with_a_file"], result["faces"], result["ap"]) == (2, 2, 2, 1)
    needs = ["--images", images] if form == "yolo" else []
    assert main(["thresholds", "--ground-truth", labels, "--detections", found, *needs, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] == 2
    robust = ["--ground-truth", labels, "--detections", str(tmp_path / "robust"), "--kinds", "jpeg"]
    assert main(["evaluate", "robustness", *robust, *model]) == 0
    assert json.loads(capsys.readouterr().out)["corruptions"][0]["ap"]["all"] == 1
    if form not in ("voc", "bbx"):
        points = ["--ground-truth", labels, "--predictions", str(tmp_path / "points.csv")]
        assert main(["evaluate", "landmarks", *points, *model]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["faces"], result["found"]) == (1, 1) and result["inter-ocular"]["nme"] == NME
    assert main(["label", *where, str(tmp_path / "out.csv"), "--quiet"]) == 0
    completed = read_annotations(tmp_path / "out.csv")
    assert len(completed) == 2 and (completed.visible == 1).all()
    validation = Validation.open(labels, images)
    both = annotate_photo("x.jpg", [box for box, _ in faces.values()], scores=[1, 0.9])
    assert len(validation.photos) == 2
    assert validation.score(lambda image: both)["val_ap_all"] == 0.5  # one of two in each photo is there


def test_widers_selections_beside_the_file_are_its_subsets(tmp_path):
    from scipy.io import savemat

    wider_tree.write_mat(tmp_path / "wider_face_val.mat")
    assert list(read_annotations(tmp_path / "wider_face_val.mat").subsets) == ["all"]
    chosen = [[[1, 2]], [[1]], [], [[3]]]  # faces from 1 of each photo
    for name in ("easy", "medium", "hard"):
        cells = wider_tree._cells([wider_tree._cells([np.array(c, np.uint8).reshape(-1, 1) for c in chosen[i : i + 2]])
                                   for i in (0, 2)])  # fmt: skip
        savemat(tmp_path / f"wider_{name}_val.mat", {"gt_list": cells})
    for path in (tmp_path, tmp_path / "wider_face_val.mat"):
        annotations = read_annotations(path)
        assert annotations.subset("easy").tolist() == [True, True, True, False, False, True]
        assert annotations.subset("all").all()
    with pytest.raises(ValueError, match=r"one of \['all', 'easy', 'medium', 'hard'\]"):
        annotations.subset("x")


# Encodings -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "a.csv": ("file,x1,y1,x2,y2\né.jpg,1,2,30,40\né.jpg,5,6,7,8\n", 2),
    "a.json": (json.dumps({"images": [{"id": 1, "file_name": "é.jpg"}], "annotations": [
        {"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 1, "bbox": [1, 2, 3, 4]}]}, ensure_ascii=False), 2),
    "label.txt": ("# e/é.jpg\n1 2 30 40\n5 6 7 8\n", 2),
    "bbx.txt": ("e/é.jpg\n2\n1 2 30 40 0 0 0 0 0 0\n5 6 7 8 0 0 0 0 0 0\n", 2),
    "list.txt": ("é.jpg 1 30 2 40 5 5 20 5 12 12 6 20 19 20\n", 1),
    "xml/a.xml": ("<annotation><filename>é.jpg</filename><object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
                  "<ymax>4</ymax></bndbox></object></annotation>", 1),
    "txt/é.txt": ("0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1\n", 2),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_reader_takes_every_unicode_encoding(name, encoding, tmp_path):
    text, faces = TEXTS[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    mark = {"utf-16-le": "", "utf-16-be": ""}.get(encoding, "")
    path.write_bytes((mark + text).encode(encoding))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "photos" / "é.jpg")
    annotations = read_annotations(path.parent if "/" in name else path, tmp_path / "photos")
    assert annotations.num_faces == faces and annotations.files[0].endswith("é.jpg")


@pytest.mark.parametrize("name", [name for name in TEXTS if not name.endswith("json") and not name.startswith("txt")])
def test_other_encodings_are_named_with_file_and_line(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(TEXTS[name][0].encode("latin-1"))
    line = TEXTS[name][0][: TEXTS[name][0].index("é")].count("\n") + 1
    with pytest.raises(ValueError, match="expected UTF-8 text") as caught:
        read_annotations(path.parent if "/" in name else path)
    assert f"{path}:{line}: " in str(caught.value)


def test_declared_encodings_of_xml_are_taken_and_codecs_that_are_none_refused(tmp_path):
    path, text = tmp_path / "a.xml", TEXTS["xml/a.xml"][0]
    path.write_bytes(f'<?xml version="1.0" encoding="ISO-8859-1"?>{text}'.encode("latin-1"))
    assert read_annotations(tmp_path).files == ("é.jpg",)
    for encoding in ("rot13", "zlib", "unicode_escape", "idna"):
        path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{text}')
        with pytest.raises(ValueError, match="unknown encoding"):
            read_annotations(tmp_path)
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + text)
    with pytest.raises(ValueError, match="document type or entities"):
        read_annotations(tmp_path)


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg", "/etc/passwd", "C:/Windows/x.jpg", "C:\\Windows\\x.jpg", "c:x.jpg", "\\\\host\\x.jpg",
        "a/../../b.jpg", "", " ", ".", 7, None, ["a.jpg"],
    ],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    content = {"images": [{"id": 1, "file_name": name}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="name of a photo below the images folder") as caught:
        read_annotations(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_names_that_no_file_can_have_cost_no_other_photo(tmp_path, capsys):
    wider_tree.make_photos(tmp_path / "photos", ["a.jpg"])
    names = ["a.jpg", "b\0.jpg", "c" * 5000 + ".jpg", "d\x1b[31m.jpg"]
    content = {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    words = ["--images", str(tmp_path / "photos"), "--annotations", str(tmp_path / "a.json"), "--workers", "1"]
    assert main(["convert", "custom", *words, "--output", str(tmp_path / "out"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 photo with 0 faces") and "3 x missing_photo" in out
    assert "\x1b" not in out and "\0" not in out and max(map(len, out.splitlines())) < 250
    assert (
        main(["convert", "custom", *words, "--output", str(tmp_path / "out"), "--quiet"]) == 0
    )  # its manifest is read


@pytest.mark.parametrize(
    ("there", "named"),
    [("IMG_1.JPG", "img_1.jpg"), (unicodedata.normalize("NFD", "josé.jpg"), "josé.jpg"), ("a/B.png", "A/b.PNG")],
)
def test_names_that_differ_in_case_or_unicode_form_are_taken_where_there_is_one(there, named, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"x")
    assert find_photos(tmp_path, annotate_photo(named)) == {unique_names([named])[0]: tmp_path / there}
    both = join([annotate_photo(named), annotate_photo(there)])
    with pytest.raises(ValueError, match="name this file twice"):
        find_photos(tmp_path, both)
    (tmp_path / there.title()).parent.mkdir(exist_ok=True)
    (tmp_path / there.title()).write_bytes(b"x")
    if len(list(tmp_path.rglob("*.*"))) == 2 and there != named:  # file systems that tell case apart
        with pytest.raises(ValueError, match="2 files have the same name in other letter case"):
            find_photos(tmp_path, annotate_photo(named))


@pytest.mark.parametrize(
    ("photo", "text"),
    [("IMG_1.JPG", "img_1.txt"), (unicodedata.normalize("NFD", "josé.jpg"), "josé.txt"), ("a/B.png", "A/b.TXT")],
)
def test_texts_of_yolo_whose_names_differ_so_are_taken_where_there_is_one(photo, text, tmp_path):
    for folder, name in (("images", photo), ("labels", text)):
        (tmp_path / folder / name).parent.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / photo)
    (tmp_path / "labels" / text).write_text("0 .5 .5 .2 .2\n")
    found = read_annotations(tmp_path / "labels", tmp_path / "images")
    assert (found.files, found.num_faces) == ((photo,), 1)


def test_a_text_of_yolo_that_two_photos_could_mean_is_refused(tmp_path):
    for name in ("img.jpg", "IMG.jpg"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "images" / name)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "Img.txt").write_text("0 .5 .5 .2 .2\n")
    with pytest.raises(ValueError, match="more than one photo or text has it in other letter case or Unicode form"):
        read_annotations(tmp_path / "labels", tmp_path / "images")


@pytest.mark.parametrize("word", ["1_0", "١٠", "１０", "0x1p3", "10,5"])
def test_numbers_that_only_python_reads_are_refused(word, tmp_path):
    (tmp_path / "a.csv").write_text(
        f"file,x1,y1,x2,y2\na.jpg,{word if ',' not in word else chr(34) + word + chr(34)},2,30,40\n"
    )
    with pytest.raises(ValueError, match=r"a\.csv:2: x1 y1 x2 y2: expected 4 numbers"):
        read_annotations(tmp_path / "a.csv", tmp_path)


def test_photos_of_wider_face_are_found_without_their_events(tmp_path):
    wider_tree.make_photos(tmp_path)
    names = tuple(wider_tree.FACES)
    annotations = join(annotate_photo(name) for name in (*names, "7--Cheering/none.jpg"))
    assert list(find_photos(tmp_path, annotations).values()) == [tmp_path / name for name in names]
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in names:
        (flat / name.split("/")[1]).write_bytes(b"x")
    assert list(find_photos(flat, annotations).values()) == [flat / name.split("/")[1] for name in names]
    with pytest.raises(FileNotFoundError, match="none of the 1 photos was found"):
        find_photos(flat, annotate_photo("e/a.jpg"))


def test_what_macos_leaves_is_no_label_and_no_photo(tmp_path):
    for folder in ("labels", "photos", "labels/__MACOSX", "photos/__MACOSX", "xml"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "photos/one.jpg")
    (tmp_path / "labels/one.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "xml/one.xml").write_text("<annotation><filename>one.jpg</filename></annotation>")
    for place in ("labels/._one.txt", "labels/__MACOSX/._one.txt", "photos/._one.jpg", "xml/._one.xml"):
        (tmp_path / place).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\xff\xfe")
    assert read_annotations(tmp_path / "labels", tmp_path / "photos").files == ("one.jpg",)
    assert read_annotations(tmp_path / "xml").files == ("one.jpg",)


# Content -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "file;x1;y1;x2;y2\na.jpg;1;2;3;4\n",
        "File, X1, Y1, X2, Y2\na.jpg, 1, 2, 3, 4\n",
        "file\tx1\ty1\tx2\ty2\r\na.jpg\t1\t2\t3\t4\r\n",
        '"file","xmin","ymin","xmax","ymax"\r"a.jpg","1","2","3","4"\r',
        "file;x1;y1;x2;y2\ra.jpg;1;2;3;4\ra.jpg;;;;\r",
        "file;x1;y1;x2;y2;size, about\na.jpg;1;2;3;4;2, 3\n",
    ],
)
def test_spreadsheets_and_people_write_csv_in_many_ways(text, tmp_path):
    (tmp_path / "a.csv").write_text(text, newline="")
    annotations = read_annotations(tmp_path / "a.csv")
    assert annotations.files == ("a.jpg",) and annotations.boxes.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("name", ["x1", "FILE", "ignore", "left_eye_x"])
def test_a_column_that_is_there_twice_is_refused(name, tmp_path):
    (tmp_path / "a.csv").write_text(f"file,x1,y1,x2,y2,ignore,left_eye_x,left_eye_y,{name}\na.jpg,1,2,3,4,0,1,2,9\n")
    with pytest.raises(ValueError, match=rf"a\.csv: the header names {name.lower()} 2 times"):
        read_annotations(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("word", "flag"),
    [("1", True), ("1.0", True), ("TRUE", True), ("True", True), ("0", False), ("FALSE", False), ("", False)]
    + [(word, None) for word in ("yes", "2", "-1", "T", "１")],
)
def test_flags_are_read_as_spreadsheets_and_pandas_write_them(word, flag, tmp_path):
    header = "file,x1,y1,x2,y2,ignore,left_eye_x,left_eye_y,left_eye_visible\n"
    (tmp_path / "a.csv").write_text(f"{header}a.jpg,1,2,3,4,{word},5,6,{word}\n", "utf-8")
    crowd = json.dumps(
        {"images": [{"id": 1, "file_name": "a.jpg"}],
         "annotations": [{"image_id": 1, "bbox": [1, 2, 2, 2], "iscrowd": word}]}
    )  # fmt: skip
    (tmp_path / "a.json").write_text(crowd)
    if flag is None:
        with pytest.raises(ValueError, match=r"a\.csv:2: left_eye_visible: expected 0 or 1"):
            read_annotations(tmp_path / "a.csv")
        with pytest.raises(ValueError, match=r"a\.json: annotation 0: iscrowd: expected 0 or 1"):
            read_annotations(tmp_path / "a.json")
        return
    annotations = read_annotations(tmp_path / "a.csv")
    assert annotations.ignore.tolist() == [flag] == read_annotations(tmp_path / "a.json").ignore.tolist()
    assert annotations.visible[0, 0] == (OCCLUDED if word and not flag else VISIBLE)


@pytest.mark.parametrize("wrong", ["1234", {"1": 0, "2": 0, "3": 0, "4": 0}, 4, [[1, 2, 3, 4]]])
def test_a_box_that_is_no_list_is_refused(wrong, tmp_path):
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": wrong}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json"):
        read_annotations(tmp_path / "a.json")


def test_a_name_with_half_a_letter_is_refused_with_its_image(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [{"id": 7, "file_name": "\\ud800.jpg"}], "annotations": []}')
    with pytest.raises(ValueError, match=r"a\.json: '\\ud800' is half of a letter"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize("word", ["x", "face", "0.0", "-1", "1e0", "①", "\ufeff0", "0x1"])
def test_class_words_that_are_no_integers_are_refused(word, tmp_path):
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{word} 0.5 0.5 0.2 0.2\n", "utf-8")
    with pytest.raises(ValueError, match=r"a\.txt:2: .*number of a class"):
        read_annotations(tmp_path, tmp_path, kind="yolo", classes=["0"])


@pytest.mark.parametrize("wrong", ["nan", "inf", "-1e999", "1e30", "9" * 400, "0x10", "1_0x", "", "true"])
def test_boxes_of_other_than_numbers_are_refused_with_the_line(wrong, tmp_path):
    (tmp_path / "a.csv").write_text(f"file,x1,y1,x2,y2\na.jpg,1,2,3,4\na.jpg,1,{wrong},3,4\n")
    (tmp_path / "a.txt").write_text(f"# a.jpg\n1 2 3 4\n1 {wrong} 3 4\n")
    for name in ("a.csv", "a.txt"):
        with pytest.raises(ValueError, match=r"a\.\w+:3: .*expected .*numbers"):
            read_annotations(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.txt", "a.mat", "a.sqlite"])
def test_a_pipe_as_labels_is_one_line(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises((OSError, ValueError)) as caught:
        read_annotations(tmp_path / name)
    assert name in str(caught.value)


def test_a_name_that_a_spreadsheet_would_compute_is_written_as_a_path(tmp_path):
    names = ["=cmd.jpg", "+a.jpg", "-b.jpg", "@c.jpg", "d.jpg"]
    write_csv(tmp_path / "a.csv", join(annotate_photo(name, [[1, 2, 3, 4]]) for name in names))
    lines = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines for cell in line.split(","))
    assert list(read_annotations(tmp_path / "a.csv").files) == names


def test_scores_ignore_regions_and_occluded_landmarks_come_back_as_written(tmp_path):
    points = np.arange(20.0).reshape(2, 5, 2)
    faces = annotate_photo("a.jpg", [[1, 2, 3, 4], [5, 6, 7, 8]], points, [[1, 0, 1, -1, 1], [-1] * 5],
                           scores=[0.5, 1], ignore=[False, True])  # fmt: skip
    write_csv(tmp_path / "a.csv", faces)
    back = read_annotations(tmp_path / "a.csv")
    for key in ("boxes", "landmarks", "visible", "scores", "ignore"):
        np.testing.assert_array_equal(getattr(back, key), getattr(faces, key), err_msg=key)


def test_a_folder_or_file_of_nothing_known_says_what_is_expected(tmp_path):
    (tmp_path / "a.pdf").write_text("x")
    for path in (tmp_path, tmp_path / "a.pdf"):
        with pytest.raises(ValueError, match=r"expected a \.json \(COCO\)"):
            guess_kind(path)
    with pytest.raises(FileNotFoundError):
        guess_kind(tmp_path / "none")


# Splitting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ([f"{e}--Event/{e}_{n}.jpg" for e in range(10) for n in range(10)], "folder"),
        ([f"test_Person_{chr(65 + p)}_{n}.jpg" for p in range(20) for n in range(5)], "name"),
        ([f"photo_{n:04d}.jpg" for n in range(100)], "photo"),
        ([f"images/a_{n:04d}-image{7 * n}.jpg" for n in range(100)], "photo"),
    ],
)
def test_persons_and_events_stay_on_one_side(files, rule):
    annotations = join(annotate_photo(file) for file in files)
    training, validation, used = split_annotations(annotations, 0.9)
    assert used == rule
    assert sorted(training.files + validation.files) == sorted(files)
    assert len(validation) == 10
    group = {"folder": lambda f: f.split("/")[0], "name": lambda f: f.rsplit("_", 1)[0], "photo": str}[rule]
    assert not {group(file) for file in training.files} & {group(file) for file in validation.files}
    again = split_annotations(annotations.take(range(99, -1, -1)), 0.9)[1]
    assert set(again.files) == set(validation.files)
    assert set(split_annotations(annotations, 0.9, seed=1)[1].files) != set(validation.files)


def test_small_and_impossible_splits():
    two = join([annotate_photo("a.jpg"), annotate_photo("b.jpg")])
    assert [len(part) for part in split_annotations(two, 0.99)[:2]] == [1, 1]
    with pytest.raises(ValueError, match="at least 2 photos"):
        split_annotations(annotate_photo("a.jpg"), 0.5)
    with pytest.raises(ValueError, match="`part` must be in"):
        split_annotations(two, 1.0)


def test_the_command_writes_both_parts(tmp_path, capsys):
    names = [f"{event}--E/{number}.jpg" for event in range(5) for number in range(2)]
    wider_tree.make_photos(tmp_path / "photos", names, size=(60, 50))
    (tmp_path / "a.csv").write_text("file,x1,y1,x2,y2\n" + "".join(f"{name},1,2,30,40\n" for name in names))
    words = ["--images", str(tmp_path / "photos"), "--annotations", str(tmp_path / "a.csv"), "--workers", "1"]
    words += ["--output", str(tmp_path / "out"), "--quiet", "--json", "-"]
    assert main(["convert", "custom", *words, "--split", "0.8"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split_by"], result["train"]["photos"], result["validation"]["photos"]) == ("folder", 8, 2)
    for part in ("train", "validation"):
        assert json.loads((tmp_path / "out" / part / "manifest.json").read_text())["complete"]
    assert main(["convert", "custom", *words, "--split", "1.5"]) == 2
    assert "--split must be a fraction" in capsys.readouterr().err


def test_no_reader_lets_a_name_out_of_the_folder(tmp_path):
    """Results are written under these names, so one check holds for all: crafted .mat and FDDB files had none."""
    for file in ("../../etc/passwd", "/etc/passwd", "C:/x.jpg", "a/../../b.jpg", ""):
        with pytest.raises(ValueError, match="expected the name of a photo below the images folder"):
            annotate_photo(file)
    (tmp_path / "found.txt").write_text("../../out\n1\n1 2 3 4 0.5\n")
    with pytest.raises(ValueError, match=r"found\.txt:1: expected the name of a photo below the images folder"):
        read_blocks(tmp_path / "found.txt", 5)


@pytest.mark.parametrize("box", [[1, 2, float("inf"), 4], [1, 2, 3, float("nan")], [1, 2, 3, 1e300]])
def test_boxes_are_numbers_or_absent_as_a_whole(box):
    with pytest.raises(ValueError, match=r"'a\.jpg': expected boxes of four numbers of at most 4e\+09"):
        annotate_photo("a.jpg", [box])
    assert annotate_photo("a.jpg", [[float("nan")] * 4]).has_boxes is False


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (0xC0, 99, "an element of kind 99"),  # SciPy looks kinds up in a table without a check, and crashes
        (0x88, 1, "a matrix of class"),
        (0xA0, 0x55000001, r"a matrix of shape \(1426063361, 1\)"),  # 11 GB from a few hundred bytes
        (0xA0, 0xFFFFFFFF, r"a matrix of shape \(-1, 1\)"),
    ],
)
def test_a_crafted_matlab_file_never_reaches_scipy(place, value, line, tmp_path, monkeypatch):
    one = np.empty((1, 1), object)
    one[0, 0] = "0--Parade"
    scipy.io.savemat(tmp_path / "w.mat", {"event_list": one})
    content = bytearray((tmp_path / "w.mat").read_bytes())
    content[place : place + 4] = value.to_bytes(4, "little")
    (tmp_path / "w.mat").write_bytes(content)
    monkeypatch.setattr("scipy.io.loadmat", lambda *_, **__: pytest.fail("SciPy was called"))
    with pytest.raises(ValueError, match=rf"w\.mat: not a readable Matlab file \({line}"):
        read_annotations(tmp_path / "w.mat")
