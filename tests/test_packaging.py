"""The wheel, installed elsewhere: does it hold what it should, and does the command work from it?"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # builds and installs the wheel

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, since setuptools leaves its build folders in the tree that it builds
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    if files == [""]:
        pytest.skip("not a git checkout: the list of files that belong to the project comes from git")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_only_our_package_is_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"retinaface_tf"}
    assert "retinaface_tf/presets/mobilenet025_wider/weights.npz" in names
    assert "retinaface_tf/presets/mobilenet025_wider/NOTICE" in names
    assert "retinaface_tf/samples/astronaut.jpg" in names


def test_every_sub_package_is_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for module in (ROOT / "retinaface_tf").rglob("*.py"):
        assert module.relative_to(ROOT).as_posix() in names


def test_the_command_works_away_from_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", target, wheel]
    subprocess.run(command, check=True, capture_output=True, text=True)
    photo = target / "retinaface_tf" / "samples" / "astronaut.jpg"
    result = subprocess.run(
        [sys.executable, "-m", "retinaface_tf", "detect", photo, "--json", "-"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)[0]["faces"]) == 1
    where = subprocess.run(
        [sys.executable, "-c", "import retinaface_tf; print(retinaface_tf.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(target))
