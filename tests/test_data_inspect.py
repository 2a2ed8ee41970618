"""What `inspect` counts and draws is what was written."""

import json

import numpy as np
import pytest
import tensorflow as tf
import wider_tree

from retinaface_tf.annotations.annotations import FLAGS, join
from retinaface_tf.annotations.widerface import read_widerface
from retinaface_tf.cli.main import main
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.example import read_shards
from retinaface_tf.data.inspect import read_contents, read_photos, statistics
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.shards import ConvertOptions, write_shards
from retinaface_tf.image.drawing import BOX_COLOR, CAPTION, GAP, LANDMARK_COLORS, contact_sheet, draw_labels


def shards_of(tmp_path, writer, name):
    wider_tree.make_photos(tmp_path / "photos")
    records = read_widerface(writer(tmp_path / name))
    output = tmp_path / "shards"
    write_shards(join(records), tmp_path / "photos", output, ConvertOptions(2), source={}, workers=1)
    return open_shards(output)


def test_statistics(tmp_path):
    _, paths = shards_of(tmp_path, wider_tree.write_label, "label.txt")
    seen = []
    contents = read_contents(paths, seen.append)
    report = statistics(contents)
    assert sum(seen) == 4
    assert sorted(contents.counts) == [0, 1, 2, 3]
    assert report["photos"]["count"] == 4 and report["photos"]["without faces"] == 1
    assert report["photos"]["width"] == {"min": 120, "median": 120, "mean": 120, "max": 120}
    assert report["faces"]["count"] == 6
    assert report["faces"]["per photo"] == {"min": 0, "median": 1.5, "mean": 1.5, "max": 3}
    # sqrt of 40x50, 12x16, 20x24, 30x40, 8x8, 9x9
    assert report["faces"]["size in pixels"]["max"] == pytest.approx(2000**0.5, abs=1e-3)
    by_size = report["faces by size"]
    assert by_size["8 to 16 px"] == {"faces": 3, "with landmarks": 0}
    assert by_size["16 to 32 px"] == {"faces": 1, "with landmarks": 0}
    assert by_size["32 to 64 px"] == {"faces": 2, "with landmarks": 1}
    assert sum(one["faces"] for one in by_size.values()) == 6
    assert report["photos by faces"]["0"] == 1 and report["photos by faces"]["3 to 5"] == 1
    assert report["landmarks"] == {"all five": 1, "some": 0, "none": 5}
    assert report["points"]["nose"] == {"visible": 1, "occluded": 0}
    assert report["points"]["right mouth corner"] == {"visible": 0, "occluded": 1}
    assert report["flags"] == {}


def test_flags_are_counted_by_meaning(tmp_path):
    _, paths = shards_of(tmp_path, wider_tree.write_bbx, "gt.txt")
    flags = statistics(read_contents(paths))["flags"]
    assert flags["blur"] == {"clear": 0, "normal": 0, "heavy": 6}
    assert flags["invalid"] == {"valid": 6, "invalid": 0}
    assert set(flags) == set(FLAGS)


def test_no_photo_and_no_face_have_statistics(tmp_path):
    empty = tmp_path / "faces-00000-of-00001.tfrecord"
    empty.write_bytes(b"")
    report = statistics(read_contents([empty]))
    assert report["faces"]["count"] == 0 and report["faces"]["size in pixels"]["max"] is None


def test_a_damaged_shard_is_one_clear_line(tmp_path):
    _, paths = shards_of(tmp_path, wider_tree.write_label, "label.txt")
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 255
    paths[0].write_bytes(content)
    with pytest.raises(ValueError, match="a damaged shard after") as caught:
        read_contents(paths)
    assert "\n" not in str(caught.value)


def a_photo(states=(VISIBLE,) * 5, invalid=0):
    points = np.array([[[30, 30], [70, 30], [50, 50], [32, 70], [68, 70]]], float)
    return {
        "image": np.zeros((100, 100, 3), np.uint8),
        "boxes": np.array([[10.0, 20, 90, 80]]),
        "landmarks": points,
        "visible": np.array([states]),
        "invalid": np.array([invalid]),
    }


def test_boxes_and_landmarks_are_drawn_where_they_are():
    drawn = np.asarray(draw_labels(a_photo(), 300))
    assert drawn.shape == (300, 300, 3)
    rows, columns = np.nonzero((drawn == BOX_COLOR).all(-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (30, 60, 269, 239)
    for (x, y), color in zip(a_photo()["landmarks"][0], LANDMARK_COLORS, strict=True):
        assert tuple(drawn[int(3 * y), int(3 * x)]) == color


def test_states_of_landmarks_look_different():
    drawn = np.asarray(draw_labels(a_photo((VISIBLE, OCCLUDED, NOT_LABELED, VISIBLE, VISIBLE)), 300))
    areas = [(drawn == color).all(-1).sum() for color in LANDMARK_COLORS]
    assert 0 < areas[1] < areas[0] and areas[2] == 0
    assert drawn[90, 210].tolist() == [0, 0, 0]  # an occluded point is hollow
    marked = np.asarray(draw_labels(a_photo(invalid=1), 300))
    assert not (marked == BOX_COLOR).all(-1).any()


def test_the_sheet_holds_every_photo(tmp_path):
    manifest, paths = shards_of(tmp_path, wider_tree.write_label, "label.txt")
    photos = read_photos(paths, 3, manifest["counts"]["photos"])
    assert len(photos) == 3 and len({one["caption"] for one in photos}) == 3
    again = read_photos(paths, 3, manifest["counts"]["photos"])
    assert [one["caption"] for one in again] == [one["caption"] for one in photos]
    assert len(read_photos(paths, 100, manifest["counts"]["photos"])) == 4
    sheet = contact_sheet(photos, columns=2, tile=150)
    assert sheet.size == (2 * (150 + GAP) + GAP, 2 * (150 + CAPTION + GAP) + GAP)


def test_plots(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plots`")
    from retinaface_tf.data.inspect import plot_contents

    _, paths = shards_of(tmp_path, wider_tree.write_label, "label.txt")
    written = plot_contents(tmp_path / "plots", read_contents(paths))
    assert [path.name for path in written] == ["face_sizes.png", "faces_per_photo.png", "landmark_coverage.png"]
    assert all(path.stat().st_size > 5000 for path in written)
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    plot_contents(tmp_path / "none", read_contents([tmp_path / "empty.tfrecord"]))


@pytest.mark.parametrize(
    ("writer", "file", "rows"),
    [
        (wider_tree.write_label, "label.txt", ["nose 1 0", "right mouth corner 0 1"]),
        (wider_tree.write_bbx, "gt.txt", ["blur: heavy 6 100.0 %", "invalid: invalid 0 0.0 %"]),
    ],
)
def test_the_command_prints_what_was_counted(writer, file, rows, tmp_path, capsys):
    shards_of(tmp_path, writer, file)
    words = ["inspect", str(tmp_path / "shards"), "--contact-sheet", str(tmp_path / "sheet.jpg"), "--quiet"]
    assert main(words) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row not in lines] == []
    assert (tmp_path / "sheet.jpg").stat().st_size > 5000


def test_another_number_of_photos_than_the_manifest_says(tmp_path, capsys):
    shards_of(tmp_path, wider_tree.write_label, "label.txt")
    path = tmp_path / "shards" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["counts"]["photos"] += 1
    path.write_text(json.dumps(manifest))
    assert main(["inspect", str(path.parent), "--quiet"]) == 2
    assert f"{path.parent}: the manifest says 5 photos, the shards hold 4" in capsys.readouterr().err


def test_crafted_records_cost_no_traceback(tmp_path):
    """TensorFlow's own message about a damaged record may be no UTF-8, and it raises that instead of its error."""
    _, paths = shards_of(tmp_path, wider_tree.write_label, "label.txt")
    record = next(iter(tf.data.TFRecordDataset(str(paths[0])))).numpy()
    manifest_path = tmp_path / "shards" / "manifest.json"

    def write(change):
        example = tf.train.Example.FromString(record)
        change(example.features.feature)
        with tf.io.TFRecordWriter(str(paths[0])) as writer:
            writer.write(example.SerializeToString())
        manifest = json.loads(manifest_path.read_text())
        manifest["shards"][0]["bytes"] = paths[0].stat().st_size
        manifest_path.write_text(json.dumps(manifest))

    def two_widths(feature):
        feature["image/width"].int64_list.value[:] = [1, 2]
        feature["image/filename"].bytes_list.value[:] = [b"\xff\xfe"]

    def a_flag_too_many(feature):
        feature["image/object/blur"].int64_list.value.append(1)

    def not_finite(feature):
        for side in ("xmin", "xmax", "ymin", "ymax"):
            feature[f"image/object/bbox/{side}"].float_list.value[:] = [float("nan")]

    for change in (two_widths, a_flag_too_many):
        write(change)
        with pytest.raises(ValueError, match=r"a damaged shard after \d photos"):
            read_contents(paths)
    others = len(list(tf.data.TFRecordDataset(str(paths[1]))))
    for change in (two_widths, not_finite):
        write(change)
        assert len(read_shards([tmp_path / "shards"])[0]) == others
