"""Text for people: counts, errors as one line, and names that steer no terminal."""

import shlex

import pytest

from retinaface_tf.common.text import command_line, first_line, pluralize, printable


def test_counts():
    assert [pluralize(n, "face") for n in (0, 1, 3226)] == ["0 faces", "1 face", "3,226 faces"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("顔 é.jpg", "顔 é.jpg"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\nb\tc\x00\x7f\x9b", "a\\nb\\tc\\x00\\x7f\\x9b"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("bytes\udcff", "bytes\\udcff"),
    ],
)
def test_names_are_printed_without_control_characters(name, shown):
    assert printable(name) == shown


def test_some_control_characters_may_stay():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_an_error_is_one_line():
    assert first_line(ValueError("\n  what \nis wrong")) == "what"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(FileNotFoundError(2, "No such file", "a\x1b.jpg")) == "a\\x1b.jpg: No such file"
    assert len(first_line(ValueError("x" * 999))) == 300


def test_commands_can_be_pasted():
    line = command_line("retinaface-tf", "detect", "my photo's.jpg")
    assert shlex.split(line) == ["retinaface-tf", "detect", "my photo's.jpg"]
