"""Faults of the system: pipes, devices, links, names, a full disk, a reader that has gone; kills, signals, rivals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from .harness import PHOTO, ROOT, Row, command, leftovers, workplace

NAMES = (
    "写真",
    "a\nb",
    "a\x1b[31mb",
    "=1+1",
    "-x",
    " ",
    "a" * 240,
    "é" * 120,
    "a'b",
    'a"b',
    "%s",
    "$HOME",
    "*",
    "[a]",
    "a\\b",
)
NUMBER = 40  # photos of a run that is killed


def _photos(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    paths = []
    base = Image.open(PHOTO).resize((160, 160))
    for index in range(number):
        paths.append(folder / f"{index:03}.jpg")
        base.rotate(index).save(paths[-1])
    return paths


def files(chance: random.Random, count: int) -> Iterator[Row]:
    """Inputs and outputs that are no regular files, and names of every kind, through the commands."""
    row = Row("files: pipes, devices, sockets and folders as inputs")
    with workplace() as here:
        shutil.copy(PHOTO, "a.jpg")
        for suffix in (
            "jpg",
            "csv",
            "json",
            "txt",
            "tflite",
            "onnx",
            "keras",
            "npz",
            "pth",
            "obj",
            "mp4",
            "parquet",
            "mat",
            "sqlite",
        ):
            os.mkfifo(f"pipe.{suffix}")
            (here / f"folder.{suffix}").mkdir()
        preset = ["--preset", "mobilenet025_wider"]
        evaluate = [
            "evaluate",
            "photos",
            *preset,
            "--images",
            ".",
            "--detections",
            "found",
            "--quiet",
            "--ground-truth",
        ]
        for kind in ("pipe", "folder"):
            for words in (
                ["detect", f"{kind}.jpg"],
                ["detect", f"{kind}.mp4"],
                ["detect", "a.jpg", "--model", f"{kind}.tflite"],
                ["detect", "a.jpg", "--model", f"{kind}.onnx"],
                ["detect", "a.jpg", "--resume", "--json", f"{kind}.json"],
                *([*evaluate, f"{kind}.{suffix}"] for suffix in ("csv", "json", "txt", "mat", "sqlite")),
                ["evaluate", "photos", "--ground-truth", "a.csv", "--detections", f"{kind}.json"],
                ["evaluate", "landmarks", "--ground-truth", f"{kind}.txt", "--predictions", "p.csv"],
                ["evaluate", "landmarks", "--ground-truth", "l.txt", "--predictions", f"{kind}.csv"],
                ["label", *preset, "--images", ".", "--scales", "1", "--points", f"{kind}.csv", "--output", "o.csv"],
                ["convert", "custom", "--images", ".", "--annotations", f"{kind}.csv", "--output", "shards"],
                ["train", "--preset", f"{kind}.json", "--print-config"],
            ):
                Path("a.csv").write_text("file,x1,y1,x2,y2\na.jpg,173,57,278,177\n")
                Path("l.txt").write_text("a.jpg 173 278 57 177 204 100 247 102 223 129 203 139 244 141\n")
                if words[:2] == ["detect", "a.jpg"] and "--resume" in words and kind == "pipe":
                    continue  # a pipe may be written to
                command(row, *words, codes=(1, 2))
        for words in (
            ["detect", "/dev/null"],
            ["detect", "/dev/zero"],
            ["detect", ""],
            ["detect", "\0"],
            ["detect", "x" * 300],
        ):
            command(row, *words, codes=(1, 2))
        if left := leftovers(here):
            row.fault("leftovers", str(left))
    yield row
    yield _outputs()
    yield _names()


def _outputs() -> Row:
    row = Row("files: outputs that are links, devices, read-only, folders, or inputs")
    with workplace() as here:
        shutil.copy(PHOTO, "a.jpg")
        for name, words, check in (
            ("real", ["--json", "link"], lambda: Path("link").is_symlink() and json.loads(Path("real").read_text())),
            ("secret", ["--json", "secret"], lambda: stat.S_IMODE(Path("secret").stat().st_mode) == 0o600),
            ("null", ["--json", "/dev/null"], lambda: stat.S_ISCHR(Path("/dev/null").stat().st_mode)),
            ("crops", ["--output", "out", "--crops"], lambda: Path("out/crops/a_0.png").is_file()),
        ):
            if name in ("real", "secret"):
                Path(name).write_text("old")
                Path(name).chmod(0o600)
            if name == "real":
                Path("link").symlink_to("real")
            code, _, err = command(row, "detect", "a.jpg", *words, codes=(0,))
            if not code and not check():
                row.fault(name, err[-200:] or "another file was written")
        before = Path("a.jpg").read_bytes()
        Path("folder").mkdir()
        Path("photo.json").symlink_to("a.jpg")
        os.link("a.jpg", "hard.csv")
        for words in (
            *(
                ["--json", "a.jpg"],
                ["--csv", "a.jpg"],
                ["--csv", "photo.json"],
                ["--csv", "hard.csv"],
                ["--json", "folder"],
            ),
            *(
                ["--json", "x" * 300],
                ["--json", "a.jpg/x"],
                ["--json", "\0"],
                ["--json", "r", "--csv", "r"],
                ["--json", ""],
            ),
            *(["--output", "a.jpg"], ["--output", "."], ["--output", "x.tiff"], ["--output", "a.jpg/x"]),
        ):
            command(row, "detect", "a.jpg", *words, codes=(1, 2) if words != ["--json", ""] else (0, 1, 2))
            if Path("a.jpg").read_bytes() != before:
                row.fault(str(words), "the photo was replaced")
                Path("a.jpg").write_bytes(before)
        if left := leftovers(here):
            row.fault("leftovers", str(left))
    return row


def _names() -> Row:
    row = Row("files: names of every kind")
    with workplace() as here:
        Path("photos").mkdir()
        for name in NAMES:
            shutil.copy(PHOTO, f"photos/{name}.jpg")
        (Path("photos") / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(PHOTO.read_bytes())
        words = ["photos", "--output", "out", "--crops", "--csv", "f.csv", "--resize", "160x160"]
        code, out, err = command(row, "detect", *words, codes=(0,))
        entries = json.loads(Path("out/detections.json").read_text("utf-8"))
        for what, good in {
            "an entry for each photo": len(entries) == len(NAMES) + 1 == len({one["file"] for one in entries}),
            "no error": code == 0 and not any("error" in one for one in entries),
            "a picture and a crop for each": all(
                Path(path).is_file()
                for one in entries
                for path in (one["picture"], *one["crops"])
                if "\\x" not in path and "\\udc" not in path
            ),
            "no control characters on the terminal": not set("\x1b\x07") & set(out + err),
            "nothing left behind": not leftovers(here),
        }.items():
            row.tried += 1
            if not good:
                row.fault("names", f"not held: {what}: {err[-200:]}")
        for name in NAMES:
            code, out, err = command(row, "detect", f"./photos/{name}.jpg", "--json", "-", codes=(0,))
            if code == 0 and json.loads(out)[0]["file"] != f"photos/{name}.jpg":
                row.fault(name, f"reported as {json.loads(out)[0]['file']!r}")
    return row


# Processes ----------------------------------------------------------------------------------------------------------


def start(*words: Any, limit: int | None = None, **options: Any) -> subprocess.Popen[str]:
    """A command in a process of its own; `limit` is the largest file that it may write, in bytes."""

    def prepare() -> None:
        import resource

        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1"}
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    given |= {"preexec_fn": prepare} if limit is not None else {}
    return subprocess.Popen([sys.executable, "-m", "retinaface_tf", *map(str, words)], **{**given, **options})


def _end(process: subprocess.Popen[str], seconds: int = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return -99, out or "", f"hung: {err}"
    return process.returncode, out or "", err or ""


def _one_line(row: Row, what: str, code: int, err: str, codes: tuple[int, ...]) -> None:
    lines = [line for line in err.strip().splitlines() if line]
    if code not in codes:
        row.fault(what, f"exit code {code}: {lines[-1:]}")
    elif "retinaface_tf/cli" in err or (code > 0 and not lines):  # a traceback, once our code runs
        row.fault(what, f"said {err[-300:]!r}")


def streams(chance: random.Random, count: int) -> Iterator[Row]:
    """Standard streams that are closed, full or unread, encodings that can't say a name, and a full disk."""
    row = Row("streams: closed, full, unread, and other encodings")
    with workplace() as here:
        _photos(here / "photos", 4)
        shutil.copy("photos/000.jpg", "写真.jpg")
        detect = f"{sys.executable} -m retinaface_tf detect"
        for line, codes in (
            (f"{detect} photos --csv - | head -1", (0,)),
            (f"{detect} photos --json r1.json >&-", (0,)),
            (f"{detect} photos --json r2.json >/dev/full", (2,)),
            (f"{detect} photos --json r3.json 2>/dev/full", (0,)),
            (f"{detect} photos --json r4.json 2>&-", (0,)),
            (f"{detect} - < photos/000.jpg", (0,)),
            (f"{detect} - < /dev/null", (1, 2)),
            (f"{detect} - <&-", (1, 2)),
            (f"PYTHONIOENCODING=cp1252 {detect} 写真.jpg --json r5.json", (0,)),
            (f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {detect} 写真.jpg --json r6.json", (0,)),
            (f"{detect} photos --json /dev/full", (2,)),
            (f"{detect} photos --json /dev/stdout | cat > r7.json", (0,)),
        ):
            row.tried += 1
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=120)
            _one_line(row, line.split("detect", 1)[1], done.returncode, done.stderr, codes)
        for number in (1, 2, 3, 4, 5, 6):
            path = Path(f"r{number}.json")
            if not path.is_file() or not json.loads(path.read_text("utf-8")):
                row.fault(path.name, "the report is lost")
    yield row
    yield _full_disk()


def _full_disk() -> Row:
    """As a full disk, a limit on the size of files: what is written is refused in the middle."""
    row = Row("disk: full in the middle of a write")
    with workplace() as here:
        _photos(here / "photos", 6)
        labels = "".join(f"{path.name},10,10,60,60\n" for path in sorted((here / "photos").iterdir()))
        Path("l.csv").write_text("file,x1,y1,x2,y2\n" + labels)
        Path("old.json").write_text("[]\n")
        preset = ("--preset", "mobilenet025_wider")
        for words, kept in (
            (("detect", "photos", "--json", "old.json"), "old.json"),
            (("detect", "photos", "--output", "out", "--crops"), None),
            (
                (
                    "convert",
                    "custom",
                    "--images",
                    "photos",
                    "--annotations",
                    "l.csv",
                    "--output",
                    "shards",
                    "--workers",
                    1,
                ),
                None,
            ),
            (("label", *preset, "--images", "photos", "--annotations", "l.csv", "--output", "o.csv"), None),
        ):
            row.tried += 1
            before = Path(kept).read_bytes() if kept else b""
            code, _, err = _end(start(*words, limit=60))
            _one_line(row, " ".join(map(str, words)), code, err, (1, 2))
            if kept and Path(kept).read_bytes() != before:
                row.fault(kept, "the old file is lost")
            if left := leftovers(here):
                row.fault(str(words), f"left behind {left}")
    return row


def kills(chance: random.Random, count: int) -> Iterator[Row]:
    """kill -9 at random moments, then the same command until it ends: nothing lost, doubled or left behind."""
    for name, prepare in (("detect --resume", _detect_run), ("evaluate", _evaluate_run), ("convert", _convert_run)):
        row = Row(f"kill -9: {name}")
        with workplace() as here:
            words, check, seconds = prepare(here)
            for number in range(count):
                row.tried += 1
                process = start(*words)
                time.sleep(chance.uniform(0.2, seconds))
                process.kill()
                _end(process)
                if number % 4 == 3 or number == count - 1:
                    code, _, err = _end(start(*words))
                    _one_line(row, f"kill {number}", code, err, (0,))
                    for fault in [*check(here), *leftovers(here)]:
                        row.fault(f"kill {number}", fault)
                    for place in ("out", "found", "shards"):
                        shutil.rmtree(here / place, ignore_errors=True)
        yield row
    yield _killed_exports(chance, count)


def _killed_exports(chance: random.Random, count: int) -> Row:
    """A killed export leaves no file or a whole one, and the same command replaces it."""
    from retinaface_tf import load

    row = Row("kill -9: export")
    words = ("export", "tflite", "--preset", "mobilenet025_wider", "--output", "faces.tflite", "--overwrite", "--quiet")
    with workplace() as here:
        for number in range(count + 1):
            row.tried += number < count
            process = start(*words)
            if number < count:
                time.sleep(chance.uniform(0.2, 12))
                process.kill()
            code, _, err = _end(process)
            if number == count:
                _one_line(row, "the run after", code, err, (0,))
            try:
                if (number == count or Path("faces.tflite").exists()) and len(load("faces.tflite").detect(PHOTO)) != 1:
                    row.fault(f"kill {number}", "the file finds other faces")
            except (ValueError, OSError) as error:
                row.fault(f"kill {number}", str(error))
        for fault in leftovers(here):
            row.fault("the run after", fault)
    return row


def signals(chance: random.Random, count: int) -> Iterator[Row]:
    """Signals at random moments, also while Python starts: the exit code, one line, and the same command goes on."""
    row = Row("SIGINT, SIGTERM, SIGHUP: detect --resume, evaluate")
    for prepare in (_detect_run, _evaluate_run):
        with workplace() as here:
            words, check, seconds = prepare(here)
            for name, expected in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):
                for moment in (chance.uniform(0, 0.3), chance.uniform(0.3, seconds)):
                    row.tried += 1
                    process = start(*words)
                    time.sleep(moment)
                    process.send_signal(getattr(signal, name))
                    code, _, err = _end(process)
                    early = (-getattr(signal, name), *([1] if name == "SIGINT" else []))  # before our code runs
                    _one_line(row, f"{name} after {moment:.2f} s", code, err, (0, expected, *early))
                code, _, err = _end(start(*words))
                _one_line(row, f"after {name}", code, err, (0,))
                for fault in [*check(here), *leftovers(here)]:
                    row.fault(name, fault)
                for place in ("out", "found"):
                    shutil.rmtree(here / place, ignore_errors=True)
    yield row


def rivals(chance: random.Random, count: int) -> Iterator[Row]:
    yield _rivals()


Prepared = tuple[tuple[Any, ...], Callable[[Path], list[str]], float]


def _detect_run(here: Path) -> Prepared:
    names = [f"photos/{path.name}" for path in _photos(here / "photos", NUMBER)]

    def check(here: Path) -> list[str]:
        entries = json.loads((here / "out" / "detections.json").read_text("utf-8"))
        faults = [] if [one["file"] for one in entries] == names else ["entries are lost or doubled"]
        for one in entries:
            with Image.open(here / one["picture"]) as picture:
                picture.load()
        return faults

    return ("detect", "photos", "--output", "out", "--resume", "--quiet"), check, 2.5


def _evaluate_run(here: Path) -> Prepared:
    paths = _photos(here / "photos", NUMBER)
    (here / "l.csv").write_text("file,x1,y1,x2,y2\n" + "".join(f"{path.name},55,18,87,55\n" for path in paths))

    def check(here: Path) -> list[str]:
        found = sorted(path.name for path in (here / "found").glob("*.txt"))
        return [] if found == [f"{path.stem}.txt" for path in paths] else ["result files are lost"]

    words = ("evaluate", "photos", "--preset", "mobilenet025_wider", "--images", "photos", "--ground-truth", "l.csv")
    return (*words, "--detections", "found", "--quiet"), check, 2.5


def _convert_run(here: Path) -> Prepared:
    paths = _photos(here / "photos", NUMBER)
    (here / "l.csv").write_text("file,x1,y1,x2,y2\n" + "".join(f"{path.name},55,18,87,55\n" for path in paths))

    def check(here: Path) -> list[str]:
        from retinaface_tf.data.manifest import open_shards

        manifest, shards = open_shards(here / "shards", verify=True)
        others = [
            path.name
            for path in (here / "shards").iterdir()
            if path not in (*shards, here / "shards" / "manifest.json")
        ]
        return [f"{others} besides"] * bool(others) + ["photos are lost"] * (manifest["counts"]["photos"] != NUMBER)

    words = ("convert", "custom", "--images", "photos", "--annotations", "l.csv", "--output", "shards")
    return (*words, "--shards", 8, "--workers", 1, "--quiet"), check, 8.0


def _rivals() -> Row:
    """Two processes that write into one output: both end well, and what is there is whole."""
    row = Row("two processes into one output")
    for prepare in (_detect_run, _evaluate_run, _convert_run):
        with workplace() as here:
            words, check, _ = prepare(here)
            row.tried += 1
            both = [start(*words), start(*words)]
            for process in both:
                code, _, err = _end(process)
                _one_line(row, str(words[0]), code, err, (0, 2))
            code, _, err = _end(start(*words))
            _one_line(row, f"{words[0]} again", code, err, (0,))
            for fault in [*check(here), *leftovers(here)]:
                row.fault(str(words[0]), fault)
    return row


def ray_batch(chance: random.Random, count: int) -> Iterator[Row]:
    """kill -9 of a batch run with all its workers, then the same command until it ends."""
    row = Row("kill -9: batch, with its workers")
    with workplace() as here:
        names = sorted(f"photos/{path.name}" for path in _photos(here / "photos", NUMBER))
        words = ("batch", "photos", "--output", "rows", "--workers", 1, "--part-size", 5, "--quiet")
        for _ in range(count):
            row.tried += 1
            process = start(*words, start_new_session=True)
            time.sleep(chance.uniform(3, 15))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        code, _, err = _end(start(*words), 300)
        _one_line(row, "the last run", code, err, (0,))
        import pyarrow.parquet as pq

        found = [name for path in here.glob("rows/part-*.parquet") for name in pq.read_table(path)["file"].to_pylist()]
        others = [path.name for path in here.glob("rows/.*")]
        for fault in ["rows are lost or doubled"] * (sorted(found) != names) + [f"{others} left"] * bool(others):
            row.fault("batch", fault)
    yield row


def sizes(chance: random.Random, count: int) -> Iterator[Row]:
    """The memory of a model over 600 sizes: what the first 100 took is the measure."""
    import numpy as np

    import retinaface_tf

    for name in (*MODELS, "mobilenet025_wider"):
        row = Row(f"memory over 600 sizes: {Path(name).suffix or '.tflite of the preset'}")
        model = retinaface_tf.load(name, threads=1)
        after = 0
        for number in range(600):
            height, width = chance.randrange(64, 900), chance.randrange(64, 900)
            image = np.zeros((height, width, 3), np.uint8)
            row.attempt(f"{width}x{height}", partial(model.detect, image))
            if number == 99:
                after = resident()
        row.kind += f" (+{resident() - after} MB after the first 100)"
        if resident() - after > 200:
            row.fault("memory", "it grows with the number of sizes")
        yield row


MODELS: list[str] = []  # further models for `sizes`


def resident() -> int:
    """The memory of this process in MB; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except OSError:
        return 0
