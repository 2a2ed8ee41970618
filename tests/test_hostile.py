"""The attack program of `tests/hostile` holds, on another seed than the page on security tells of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,  # minutes, and processes
    pytest.mark.skipif(os.name != "posix", reason="pipes, devices and limits of Unix"),
]


def test_every_attack_holds(tmp_path):
    pytest.importorskip("grpc")
    words = [sys.executable, "-m", "tests.hostile", "--seed", "1", "--count", "60", "--json", tmp_path / "table.json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table) > 30 and all(tried == held > 0 for _, tried, held in table)


def test_the_harness_sees_what_does_not_hold():
    """Each way to fail is a fault: another exception, two lines, too much memory, a wrong result."""
    sys.path.insert(0, str(ROOT))
    try:
        from tests.hostile.harness import Row
    finally:
        sys.path.remove(str(ROOT))
    row = Row("made up")

    def fail(error):
        raise error

    row.attempt("ours", lambda: fail(ValueError("one line")))
    row.attempt("right", lambda: 1, lambda found: None)
    assert (row.tried, row.held) == (2, 2)
    row.attempt("raw", lambda: fail(KeyError("x")))
    row.attempt("two lines", lambda: fail(ValueError("one\ntwo")))
    row.attempt("steers the terminal", lambda: fail(OSError("a\x1b[31m")))
    row.attempt("codec", lambda: b"\xff".decode())
    row.attempt("wrong", lambda: 1, lambda found: fail(AssertionError()))
    row.attempt("bomb", lambda: bytearray(b"x" * (1 << 30)) and None)
    assert (row.tried, row.held) == (8, 2)
