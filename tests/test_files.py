"""Photos that a user names, and files that are written whole or not at all."""

import importlib.util
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from retinaface_tf.common.files import (
    HEIF_SUFFIXES,
    PHOTO_SUFFIXES,
    _cleaned,
    atomic_write,
    distinct_names,
    find_photos,
    fit_name,
    is_stream,
    read_bytes,
    require_file,
    require_writable,
    resolve,
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_photos_in_order_with_their_place_below_it(tree):
    photos, complaints, _ = find_photos(["photos"])
    assert photos == [
        (Path("photos/a.PNG"), Path("a.PNG")),
        (Path("photos/b.jpg"), Path("b.jpg")),
        (Path("photos/deep/c.webp"), Path("deep/c.webp")),
    ]
    assert complaints == []


def test_patterns_files_and_folders_name_each_photo_once(tree):
    photos, complaints, _ = find_photos(["photos/*.jpg", "photos/b.jpg", "photos", "photos/notes.txt"])
    assert [p.name for p, _ in photos] == ["b.jpg", "a.PNG", "c.webp", "notes.txt"]  # a named file is taken at its word
    assert complaints == []


def test_nothing_found_is_said(tree):
    photos, complaints, _ = find_photos(["empty", "*.gif"])
    assert photos == []
    assert complaints[0].startswith("empty: no photo in this folder")
    assert complaints[1] == "*.gif: no file matches this pattern"


def test_a_file_with_brackets_in_its_name_is_a_file(tree):
    (tree / "me[1].jpg").touch()
    assert find_photos(["me[1].jpg"])[0] == [(Path("me[1].jpg"), Path("me[1].jpg"))]


def test_names_that_would_overwrite_each_other_are_numbered():
    names = [Path("a.jpg"), Path("x/a.jpg"), Path("a.png"), Path("A.jpg"), Path("a-2.jpg")]
    assert [str(p) for p in distinct_names(names)] == ["a.jpg", "x/a.jpg", "a-2.png", "A-3.jpg", "a-2-2.jpg"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "report.json"
    with atomic_write(path) as file:
        file.write("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_photos_are_what_pillow_decodes():
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    # Data of other kinds, drawings that run a program (EPS, WMF), and clips.
    others = {".bufr", ".emf", ".wmf", ".eps", ".ps", ".gbr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg"}
    assert set(PHOTO_SUFFIXES) - {".mpo"} == readable - others - set(HEIF_SUFFIXES)


def test_hidden_companions_are_not_searched_and_the_rest_is_counted(tree):
    for name in ("._a.PNG", ".DS_Store", "__MACOSX/._b.jpg", "__MACOSX/b.jpg", "scan.jfif", "me.HEIC"):
        (tree / "photos" / name).parent.mkdir(exist_ok=True)
        (tree / "photos" / name).touch()
    found = find_photos(["photos"])
    heif = importlib.util.find_spec("pillow_heif") is not None
    assert [p.name for p, _ in found.photos] == ["a.PNG", "b.jpg", "c.webp", *["me.HEIC"] * heif, "scan.jfif"]
    assert found.complaints == []
    (note,) = found.notes
    assert note.startswith("photos: passed over 1 file without a photo's suffix (.txt); 3 hidden")
    assert heif or "1 HEIF, which need pillow-heif: pip install" in note
    assert find_photos(["photos/deep"]).notes == []


def test_what_is_no_photo_or_not_entered_is_counted(tree):
    (tree / "photos" / "lost.png").symlink_to("nowhere.png")
    (tree / "photos" / "round.png").symlink_to("round.png")
    (tree / "photos" / "more").symlink_to(tree)
    found = find_photos(["photos"], skip="photos/round.png")
    assert (
        "; 2 with a photo's suffix that are no files (pipes, links to nothing); 1 linked folder, which"
        in found.notes[0]
    )
    assert "(.txt)" in found.notes[0] and ".png" not in found.notes[0]


def test_links_that_lead_in_a_circle_are_refused_and_stay(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert resolve(tmp_path / "a").name in ("a", "b")
    for call in (require_writable, write):
        with pytest.raises(OSError, match="Too many levels"):
            call(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


def test_an_empty_name_does_not_search_the_current_folder(tree):
    with pytest.raises(ValueError, match="Received an empty name"):
        find_photos([""])


@pytest.fixture
def pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_what_is_no_file_is_refused_and_not_waited_for(pipe):
    with pytest.raises(OSError, match="found a named pipe"):
        read_bytes(pipe)
    with pytest.raises(OSError, match="found a device"):
        require_file("/dev/zero")
    with pytest.raises(IsADirectoryError):
        read_bytes(pipe.parent)
    with pytest.raises(FileNotFoundError):
        read_bytes("")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"1")
    with pytest.raises(ValueError, match="1 bytes, more than the 0 that are allowed"):
        read_bytes(path, max_bytes=0)


def write(path, content="new"):
    with atomic_write(path) as file:
        file.write(content)


def test_a_pipe_is_written_to_and_stays_a_pipe(pipe):
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    require_writable(pipe)
    write(pipe)
    reader.join(10)
    assert (got, pipe.is_fifo()) == (["new"], True)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")  # noqa: PTH110
def test_an_open_descriptor_is_written_to_behind_what_is_there(tmp_path):
    with (tmp_path / "log").open("w+") as file:
        file.write("first ")
        file.flush()
        write(f"/dev/fd/{file.fileno()}")
        assert is_stream(f"/dev/fd/{file.fileno()}")
    assert (tmp_path / "log").read_text() == "first new"


def test_a_device_stays_a_device():
    before = os.stat(os.devnull)  # noqa: PTH116
    write(os.devnull)
    assert os.path.samestat(before, os.stat(os.devnull))  # noqa: PTH116


def test_a_link_is_followed_and_permissions_are_kept(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to("real.json")
    write(link)
    assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o600
    (tmp_path / "dangling").symlink_to("later.json")
    write(tmp_path / "dangling")
    assert (tmp_path / "later.json").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path):
    (tmp_path / "theirs").touch()
    os.chown(tmp_path / "theirs", 12345, 54321)
    write(tmp_path / "theirs")
    status = (tmp_path / "theirs").stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250)
    require_writable(path)
    write(path)
    assert path.read_text() == "new"
    assert fit_name("a", "_0.png") == "a_0.png"
    cut, other = fit_name("é" * 125 + "a", "_0.png"), fit_name("é" * 125 + "b", "_0.png")
    assert len(os.fsencode(cut)) <= 255 and cut != other and cut.endswith("_0.png")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    left = tmp_path / ".rf-0123456789abcdef.part"
    left.touch()
    with atomic_write(tmp_path / "a") as file:
        assert not left.exists()
        _cleaned.clear()
        write(tmp_path / "b")  # cleans up again while `a` is being written
        file.write("whole")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "whole", "b": "new"}


def test_a_full_disk_is_told_with_the_path(tmp_path):
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write("/dev/full")
    path = tmp_path / "report.json"
    with pytest.raises(OSError) as told, atomic_write(path):
        raise OSError(28, "No space left on device")
    assert (told.value.filename, list(tmp_path.iterdir())) == (str(path), [])


@pytest.mark.parametrize("address", ["https://example.com/a.jpg", "s3://bucket/a.png", "file:///a.jpg"])
def test_an_address_is_refused_as_it_was_given(address):
    photos, complaints, _ = find_photos([address])
    assert photos == []
    assert complaints == [f"{address}: photos are not fetched from an address. Save it, and give its path"]
