"""Shards: the same bytes however they were made, resumed after a kill, refused where they don't fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
import wider_tree

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.data.example import parse_example
from retinaface_tf.data.manifest import MANIFEST, open_shards, read_manifest
from retinaface_tf.data.shards import ConvertOptions, write_shards

SOURCE = {"kind": "test"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """(images folder, records) of ten photos."""
    folder = tmp_path_factory.mktemp("photos")
    names = [f"e/{number}.jpg" for number in range(10)]
    wider_tree.make_photos(folder, names)
    return folder, [annotate_photo(name, [[1, 2, 30 + i, 40]]) for i, name in enumerate(names)]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def convert(tree, output, shards=3, records=None, **more):
    fields = {key: more.pop(key) for key in ("seed", "labels", "drop_invalid", "decode") if key in more}
    options = ConvertOptions(shards=shards, **fields)
    return write_shards(join(records or tree[1]), tree[0], output, options, **{"source": SOURCE, "workers": 1, **more})


def names_in(paths):
    return [parse_example(one)["filename"].numpy().decode() for one in tf.data.TFRecordDataset(paths)]


def test_every_photo_once_and_shuffled(tree, tmp_path):
    manifest = convert(tree, tmp_path / "out")
    _, paths = open_shards(tmp_path / "out", verify=True)
    names = names_in(paths)
    assert sorted(names) == sorted(record.files[0] for record in tree[1])
    assert names != sorted(names)
    assert [shard["photos"] for shard in manifest["shards"]] == [3, 3, 4]
    assert manifest["complete"] and manifest["counts"]["faces"] == 10
    convert(tree, tmp_path / "other", seed=1)
    assert names_in(open_shards(tmp_path / "other")[1]) != names


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_workers_or_the_order_of_records(tree, tmp_path):
    convert(tree, tmp_path / "one", shards=4, workers=1)
    convert(tree, tmp_path / "two", shards=4, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    convert(tree, tmp_path / "three", shards=4, records=tree[1][::-1])
    shards = [{n: b for n, b in contents(tmp_path / k).items() if n != MANIFEST} for k in ("one", "three")]
    assert shards[0] == shards[1]


@pytest.mark.slow
def test_problems_are_counted_and_listed(tree, tmp_path):
    images = tmp_path / "photos"
    shutil.copytree(tree[0], images)
    (images / "e/0.jpg").unlink()
    whole = (images / "e/1.jpg").read_bytes()
    (images / "e/1.jpg").write_bytes(whole[: len(whole) - 100])  # the header is good
    dirty = annotate_photo("e/2.jpg", [[5, 5, 5, 9], [1, 1, 9, 9], [500, 5, 510, 9], [-4, 5, 9, 9]])
    records = [dirty if record.files == dirty.files else record for record in tree[1]]
    manifest = convert((images, records), tmp_path / "out")
    found = {kind: number for kind, number in manifest["counts"]["problems"].items() if number}
    assert found == {"missing_photo": 1, "corrupt_photo": 1, "no_area": 1, "outside": 1, "clipped": 1}
    assert (manifest["counts"]["photos"], manifest["counts"]["faces"]) == (8, 9)
    listed = sorted(name for shard in manifest["shards"] for name, _, _ in shard["problems"])
    assert listed == ["e/0.jpg", "e/1.jpg", "e/2.jpg", "e/2.jpg", "e/2.jpg"]
    assert convert((images, records), tmp_path / "trusting", decode=False)["counts"]["problems"]["corrupt_photo"] == 0
    with pytest.raises(ValueError, match="--strict stops"):  # though all shards are finished
        convert((images, records), tmp_path / "out", strict=True)
    for workers in (1, 2):
        with pytest.raises(ValueError, match=r"e/[012]\.jpg: .*--strict stops"):
            convert((images, records), tmp_path / f"strict{workers}", strict=True, workers=workers)
        with pytest.raises(ValueError, match="shards are finished"):
            open_shards(tmp_path / f"strict{workers}")


def test_finished_shards_are_kept_and_damaged_ones_written_again(tree, tmp_path):
    convert(tree, tmp_path)
    before, (_, paths) = contents(tmp_path), open_shards(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"x")
    paths[2].unlink()
    kept = paths[0].stat().st_ino, paths[0].stat().st_mtime_ns
    done = []
    convert(tree, tmp_path, progress=done.append)
    assert contents(tmp_path) == before
    assert (paths[0].stat().st_ino, paths[0].stat().st_mtime_ns) == kept
    assert sum(done) == 10


def test_other_options_or_annotations_are_refused(tree, tmp_path):
    convert(tree, tmp_path)
    before = contents(tmp_path)
    for change, message in [
        ({"shards": 4}, r"shards=3\. Received: 4"),
        ({"seed": 1}, r"seed=0\. Received: 1"),
        ({"labels": "upright"}, "labels=stored"),
        ({"drop_invalid": True}, "drop_invalid"),
        ({"decode": False}, "decode"),
        ({"records": tree[1][:9]}, "annotations"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(tree, tmp_path, **change)
        assert contents(tmp_path) == before
    convert(tree, tmp_path, shards=4, overwrite=True)
    assert len(contents(tmp_path)) == 5
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        convert(tree, tmp_path, shards=4)


def test_unusable_input(tree, tmp_path):
    for change, error, message in [
        ({"shards": 11}, ValueError, "at most the number of photos, 10"),
        ({"shards": 0}, ValueError, "`shards` must be"),
        ({"labels": "sideways"}, ValueError, "`labels` must be one of"),
    ]:
        with pytest.raises(error, match=message):
            convert(tree, tmp_path / "out", **change)
    with pytest.raises(ValueError, match="list none"):
        write_shards(join([]), tree[0], tmp_path / "out", ConvertOptions(1), source=SOURCE)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        convert((tmp_path / "nowhere", tree[1]), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="none of the 10 photos"):
        convert((tmp_path, tree[1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for content in ("[]", '{"format": 1}', '{"format": 1, "complete": true, "shards": [], "counts": []}'):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(ValueError, match="manifest"):
            open_shards(tmp_path)


def test_reading_an_unsound_folder_is_refused(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        open_shards(tmp_path)
    convert(tree, tmp_path)
    _, paths = open_shards(tmp_path)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-1] + b"x")
    open_shards(tmp_path)  # the same size
    with pytest.raises(ValueError, match="not the file that the manifest describes"):
        open_shards(tmp_path, verify=True)
    paths[0].write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="not the file"):
        open_shards(tmp_path)
    paths[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"faces-00000-of-00003\.tfrecord: missing, but in the manifest"):
        open_shards(tmp_path)


KILLED = """
import sys
from pathlib import Path
from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.data.shards import ConvertOptions, write_shards

if __name__ == "__main__":
    images, output = sys.argv[1:]
    records = [annotate_photo(f"{i}.jpg", [[1, 2, 30, 40]]) for i in range(240)]
    write_shards(join(records), images, output, ConvertOptions(shards=24), source={"kind": "test"}, workers=2)
"""


@pytest.mark.slow
def test_a_killed_conversion_goes_on(tmp_path):
    """kill -9 in the middle: the workers die too, no half shard has a name, and the end is the same to the byte."""
    images, output, script = tmp_path / "photos", tmp_path / "out", tmp_path / "convert.py"
    wider_tree.make_photos(images, ["0.jpg"], size=(2400, 2000))
    for number in range(1, 240):
        (images / f"{number}.jpg").hardlink_to(images / "0.jpg")
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(images), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (output / MANIFEST).exists() or not read_manifest(output)["shards"]:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "the workers outlive their parent"
        time.sleep(0.05)
    manifest = read_manifest(output)
    finished = {shard["file"]: (output / shard["file"]).stat().st_mtime_ns for shard in manifest["shards"]}
    assert 0 < len(finished) < 24 and not manifest["complete"]
    (output / ".faces-00023-of-00024.tfrecord.1.tmp").write_bytes(b"half a shard")
    subprocess.run(command, env=environment, check=True, timeout=300)
    for name, written in finished.items():
        assert (output / name).stat().st_mtime_ns == written
    records = [annotate_photo(f"{i}.jpg", [[1, 2, 30, 40]]) for i in range(240)]
    convert((images, records), tmp_path / "straight", shards=24)
    assert contents(output) == contents(tmp_path / "straight")


def group_lives(group):
    try:
        os.killpg(group, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True
