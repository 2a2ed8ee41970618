"""Which photos are meant, and is a file ever half written?"""

from pathlib import Path

import pytest

from retinaface_tf.common.files import atomic_write, distinct_names, find_photos


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_photos_in_order_with_their_place_below_it(tree):
    photos, complaints = find_photos(["photos"])
    assert photos == [
        (Path("photos/a.PNG"), Path("a.PNG")),
        (Path("photos/b.jpg"), Path("b.jpg")),
        (Path("photos/deep/c.webp"), Path("deep/c.webp")),
    ]
    assert complaints == []


def test_patterns_files_and_folders_name_each_photo_once(tree):
    photos, complaints = find_photos(["photos/*.jpg", "photos/b.jpg", "photos", "photos/notes.txt"])
    assert [p.name for p, _ in photos] == ["b.jpg", "a.PNG", "c.webp", "notes.txt"]  # a named file is taken at its word
    assert complaints == []


def test_nothing_found_is_said(tree):
    photos, complaints = find_photos(["empty", "*.gif"])
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
