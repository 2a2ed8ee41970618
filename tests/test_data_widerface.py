"""Every published form of the WIDER FACE annotations says the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wider_tree
from scipy.io import savemat

from retinaface_tf.annotations.annotations import FLAGS, UNKNOWN
from retinaface_tf.annotations.widerface import read_widerface
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE

WRITERS = {"label.txt": wider_tree.write_label, "bbx_gt.txt": wider_tree.write_bbx, "val.mat": wider_tree.write_mat}


@pytest.mark.parametrize("form", WRITERS)
def test_each_form_gives_the_same_boxes(form, tmp_path):
    records = list(read_widerface(WRITERS[form](tmp_path / form)))
    assert [record.files[0] for record in records] == list(wider_tree.FACES)
    for record, faces in zip(records, wider_tree.FACES.values(), strict=True):
        expected = [(x, y, x + w, y + h) for (x, y, w, h), _ in faces]
        np.testing.assert_array_equal(record.boxes, np.reshape(expected, (-1, 4)))


def test_label_landmarks(tmp_path):
    first, second = list(read_widerface(wider_tree.write_label(tmp_path / "label.txt")))[:2]
    np.testing.assert_array_equal(first.landmarks[0], [point[:2] for point in wider_tree.POINTS])
    # In label.txt 0 is visible and 1 is not.
    assert first.visible[0].tolist() == [VISIBLE, VISIBLE, VISIBLE, OCCLUDED, OCCLUDED]
    assert (first.visible[1] == NOT_LABELED).all() and (first.landmarks[1] == 0).all()
    assert first.blur_score.tolist() == [0.82, UNKNOWN]
    assert (second.visible == NOT_LABELED).all()


def test_label_of_val_has_boxes_only(tmp_path):
    path = tmp_path / "label.txt"
    path.write_text("# 0--Parade/a.jpg\n345 211 4 4\n331 126 3 3\n# 0--Parade/b.jpg\n1 2 3 4\n")
    one, two = read_widerface(path)
    assert one.boxes.tolist() == [[345, 211, 349, 215], [331, 126, 334, 129]]
    assert (one.visible == NOT_LABELED).all() and two.num_faces == 1


@pytest.mark.parametrize("form", ["bbx_gt.txt", "val.mat"])
def test_flags(form, tmp_path):
    record = read_widerface(WRITERS[form](tmp_path / form))
    told = dict(
        zip(("blur", "expression", "illumination", "invalid", "occlusion", "pose"), wider_tree.FLAGS, strict=True)
    )
    assert record.flags[0].tolist() == [told[flag] for flag in FLAGS]


@pytest.mark.parametrize("last", [True, False])
def test_a_photo_without_faces_has_a_line_of_zeros(last, tmp_path):
    path, empty = tmp_path / "gt.txt", "a/x.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    other = "a/y.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n"
    path.write_text(other + empty if last else empty + other)
    assert {record.files[0]: record.num_faces for record in read_widerface(path)} == {"a/x.jpg": 0, "a/y.jpg": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("# a/x.jpg\n1 2 3\n", r":2: expected 4 or 19 or 20 numbers"),
        ("# a/x.jpg\n1 2 3 four\n", r":2: .*expected 4 numbers"),
        ("# a/x.jpg\n1 2 3 nan\n", r":2: .*finite"),
        ("# a/x.jpg\n1 2 3 4\n# a/x.jpg\n1 2 3 4\n", "twice"),
        ("# ../x.jpg\n", "expected a photo"),
        ("a/x.jpg\n", "the file ends"),
        ("a/x.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "has 2 faces, but the file ends after 1"),
        ("a/x.jpg\nmany\n", "expected the number of faces"),
        ("a/x.jpg\n1\n1 2 3 4\n", r":3: expected 10 numbers"),
        ("some prose\nand more\n", "expected a photo"),
    ],
)
def test_bad_text_is_one_clear_line(text, message, tmp_path):
    path = tmp_path / "label.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_widerface(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_widerface(tmp_path / "none.txt")
    savemat(tmp_path / "odd.mat", {"event_list": [[1.0]], "file_list": [[2.0]], "face_bbx_list": [[3.0]]})
    with pytest.raises(ValueError, match="another shape"):
        read_widerface(tmp_path / "odd.mat")
    for name in ("bad.mat", "bad.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00no" * 50)
        with pytest.raises(ValueError, match=r"bad\.(mat: not a Matlab file of version 5|txt:1: expected a photo)"):
            read_widerface(tmp_path / name)


@wider_tree.needs_data("wider_ground_truth")
def test_the_official_val_file():
    """The counts of FACTS: 3,226 photos, 39,708 boxes, 11 of zero area; the boxes as in the text beside it."""
    records = list(read_widerface(wider_tree.DATA / "wider_ground_truth" / "wider_face_val.mat"))
    boxes = np.concatenate([record.boxes for record in records])
    assert (len(records), len(boxes)) == (3226, 39708)
    assert ((boxes[:, 2:] - boxes[:, :2]) <= 0).any(-1).sum() == 11
    lines = (wider_tree.DATA / "wider_ground_truth" / "val_sizes_and_boxes.txt").read_text().splitlines()
    assert records[0].files[0] == lines[0].split()[1]
    assert records[0].boxes[0].tolist() == [float(v) for v in lines[1].split()]


def test_reading_needs_no_tensorflow():
    code = """
import sys
import retinaface_tf.cli.convert_widerface, retinaface_tf.cli.convert_custom, retinaface_tf.cli.inspect
import retinaface_tf.annotations.read, retinaface_tf.data.shards
assert not {"tensorflow", "keras", "matplotlib"} & set(sys.modules), "imported"
"""
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})
