"""Printing: whatever standard output can show, the run goes on and its files are written."""

import errno
import io
import json
import os
import signal
import sys

import pytest

from retinaface_tf.cli import main as cli
from retinaface_tf.cli import output


class Stream(io.TextIOWrapper):
    """A standard stream with an encoding of its own, or whose reader has gone."""

    def __init__(self, encoding="utf-8", error=None):
        super().__init__(io.BytesIO(), encoding)
        self.error = error

    def write(self, text):
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().write(text)

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "顔 é"), ("cp1252", "\\u9854 é"), ("ascii", "\\u9854 \\xe9")]
)
def test_what_can_not_be_encoded_is_escaped(monkeypatch, encoding, shown):
    stream = Stream(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with output.console():
        output.say("顔 é")
    assert stream.text() == f"{shown}\n"
    assert stream.errors == "strict"  # as it was


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_stays_json_in_any_encoding(monkeypatch, encoding):
    value = {"file": "顔 é 😀 \x7f\x1b\u2028\udcff"}
    stream = Stream(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with output.console():
        output.say_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(stream.text()) == value
    assert not {"\x7f", "\x1b", "\u2028"} & set(stream.text())


def run_printing(monkeypatch, error, code=0):
    """(exit code, number of lines printed after the first) of a command that prints two lines to a failing stream."""
    printed = []

    def run(args):
        output.say("first")
        output.say("second")
        printed.append("went on")
        return code

    monkeypatch.setattr("retinaface_tf.cli.completion.run", run)
    monkeypatch.setattr(sys, "stdout", Stream(error=error))
    return cli.main(["completion", "bash"]), printed


def test_lines_of_a_clip_go_on_without_a_reader(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(error=errno.EPIPE))
    with output.console():
        lines = output.StandardOutput()
        assert [lines.write("{}\n"), lines.write("{}\n")] == [3, 3]


def test_a_reader_that_has_gone_ends_nothing(monkeypatch, capsys):
    assert run_printing(monkeypatch, errno.EPIPE) == (0, ["went on"])
    assert capsys.readouterr().err == ""


def test_a_full_disk_behind_standard_output_is_told_at_the_end(monkeypatch, capsys):
    assert run_printing(monkeypatch, errno.ENOSPC) == (2, ["went on"])
    assert capsys.readouterr().err == "retinaface-tf: standard output: No space left on device\n"


def test_closed_streams_are_no_error(monkeypatch):
    monkeypatch.setattr("retinaface_tf.cli.completion.run", lambda args: output.say("x") or output.complain("y") or 0)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["completion", "bash"]) == 0


@pytest.mark.parametrize("word", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_as_ctrl_c_does(monkeypatch, capsys, word):
    number = getattr(signal, word, None)
    if number is None:
        pytest.skip(f"no {word} here")
    outside = signal.signal(number, signal.SIG_DFL)  # `nohup` lets SIGHUP be ignored
    before = signal.getsignal(number)
    monkeypatch.setattr("retinaface_tf.cli.completion.run", lambda args: os.kill(os.getpid(), number))
    assert cli.main(["completion", "bash"]) == 128 + number
    assert capsys.readouterr().err == "retinaface-tf: interrupted\n"
    assert signal.getsignal(number) == before
    signal.signal(number, outside)


def test_a_full_disk_behind_standard_error_costs_no_report(tmp_path, sample_photo, monkeypatch):
    """A progress bar prints by itself, without the care of `complain`."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(sample_photo.read_bytes())
    full = Stream(error=errno.ENOSPC)
    monkeypatch.setattr(sys, "stderr", full)
    report = tmp_path / "r.json"
    assert cli.main(["detect", str(tmp_path), "--json", str(report)]) == 0
    assert sys.stderr is full
    assert len(json.loads(report.read_text())) == 2
