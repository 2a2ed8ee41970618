"""Do the files of the standard layouts come back as they were written, and are broken ones named?"""

import numpy as np
import pytest
from evaluation_data import DATA, found, ground_truth, needs_ground_truth

from retinaface_tf.annotations.widerface import find_wider_ground_truth, read_wider_ground_truth
from retinaface_tf.evaluation.detection_files import (
    read_detection_file,
    read_detection_list,
    read_detections,
    truncate,
    write_detection_file,
)


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    corner = rng.random((20, 2)) * 1000
    boxes = np.concatenate([corner, corner + rng.random((20, 2)) * 50], axis=1).astype(np.float32)
    scores = rng.random(20).astype(np.float32)
    write_detection_file(tmp_path / "0--Parade" / "photo.txt", found(boxes, scores))
    back = read_detections(tmp_path, ["0--Parade/photo", "0--Parade/other"])
    assert list(back) == ["0--Parade/photo"]
    np.testing.assert_allclose(back["0--Parade/photo"].boxes, boxes, atol=1e-6)
    np.testing.assert_array_equal(back["0--Parade/photo"].scores, scores.astype(np.float64))
    assert [path.name for path in (tmp_path / "0--Parade").iterdir()] == ["photo.txt"]


def test_the_layout_is_the_official_one(tmp_path):
    write_detection_file(tmp_path / "photo.txt", found([[1.5, 2, 11.5, 22]], [0.25]))
    assert (tmp_path / "photo.txt").read_text() == "photo\n1\n1.5 2 10 20 0.25\n"


def test_integer_boxes_cut_corners_not_sizes(tmp_path):
    write_detection_file(tmp_path / "photo.txt", found([[1.9, 2.9, 4.1, 9.99]], [0.5]), integer_boxes=True)
    assert (tmp_path / "photo.txt").read_text() == "photo\n1\n1 2 3 7 0.5\n"
    assert truncate(np.array([20.1 + 9.9 - 1e-9, -1.5])).tolist() == [30, -1]


def test_an_empty_photo_stays_empty(tmp_path):
    write_detection_file(tmp_path / "photo.txt", found([], []))
    back = read_detection_file(tmp_path / "photo.txt")
    assert back.boxes.shape == (0, 4) and back.scores.shape == (0,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("photo\n", "1 lines"),
        ("photo\nmany\n", "line 2 is 'many'"),
        ("photo\n2\n1 2 3 4 0.5\n", "promises 2 detections, 1 follow"),
        ("photo\n1\n1 2 3 4\n", "line 3"),
        ("photo\n2\n1 2 3 4 0.5\n1 2 3 4 nan\n", "line 4"),
        ("photo\n2\n1 2 3 4 0.5 6\n1 2 3 4\n", "line 3"),
        ("photo\n１\n1 2 3 4 0.5\n", "line 2"),
        ("photo\n1\n1_0 2 3 4 0.5\n", "line 3"),
        ("photo\n1\n１ 2 3 4 0.5\n", "line 3"),
        ("photo\n1\n1e308 2 1e308 4 0.5\n", "line 3"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, complaint):
    (tmp_path / "photo.txt").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=complaint) as error:
        read_detection_file(tmp_path / "photo.txt")
    assert "photo.txt" in str(error.value)


def test_a_wrong_folder_is_an_error_not_a_zero(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the 1 photos"):
        read_detections(tmp_path, ["e/photo"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_detections(tmp_path / "nowhere", ["e/photo"])


def test_missing_ground_truth_says_how_to_give_it(tmp_path, monkeypatch):
    monkeypatch.delenv("RETINAFACE_TF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="RETINAFACE_TF_DATA"):
        find_wider_ground_truth()
    with pytest.raises(FileNotFoundError, match=r"wider_face_val\.mat"):
        find_wider_ground_truth(tmp_path)
    (tmp_path / "wider_face_val.mat").write_text("not a Matlab file")
    with pytest.raises(ValueError, match="Matlab"):
        read_wider_ground_truth(tmp_path)


@pytest.mark.parametrize("there", ["0--Parade/A\u0301.txt", "0--parade/á.TXT", "á.txt"])
def test_a_result_whose_name_differs_in_case_or_unicode_form_is_read(there, tmp_path):
    write_detection_file(tmp_path / there, found([[1, 2, 3, 4]], [0.5]))
    assert list(read_detections(tmp_path, ["0--Parade/á", "0--Parade/b"])) == ["0--Parade/á"]


def test_a_photo_that_a_list_has_twice_is_refused(tmp_path):
    (tmp_path / "all.txt").write_text("a\n1\n1 2 3 4 0.9\na\n1\n5 6 7 8 0.8\n")
    with pytest.raises(ValueError, match=r"all\.txt:4: lists 'a' twice"):
        read_detection_list(tmp_path / "all.txt")


def test_fewer_photos_keep_their_faces_and_subsets():
    faces = ground_truth({"e/a": [[0, 0, 1, 1]], "e/b": [], "e/c": [[2, 2, 3, 3], [4, 4, 5, 5]]}, s=[1, 0, 1])
    less = faces.only(["e/c", "e/b"])
    assert less.names == ("e/b", "e/c")
    assert less.image.tolist() == [1, 1]
    assert less.subsets["s"].tolist() == [False, True]
    with pytest.raises(ValueError, match="no photo 'e/x'"):
        faces.only(["e/x"])


@needs_ground_truth
def test_the_official_files_read_as_the_plain_text_copy():
    faces = read_wider_ground_truth(DATA / "wider_ground_truth")
    name, boxes, same = None, {}, 0
    for line in (DATA / "wider_ground_truth" / "val_sizes_and_boxes.txt").read_text().splitlines():
        if line.startswith("#"):
            name = line.split()[1].removesuffix(".jpg")
            boxes[name] = []
        else:
            boxes[name].append([float(value) for value in line.split()])
    for name in faces.names[::50]:
        np.testing.assert_array_equal(faces.only([name]).boxes, np.array(boxes[name]).reshape(-1, 4))
        same += 1
    assert same == 65
    assert int((faces.boxes[:, 2:] <= faces.boxes[:, :2]).any(axis=1).sum()) == 11
    assert faces.flags.shape == (39708, 6) and faces.flags.min() == 0
