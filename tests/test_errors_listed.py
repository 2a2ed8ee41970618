"""Every error message that a user can meet is provoked by a test; this one finds those that none is about.

An error is a `raise` with words of its own. A test is about it if one of its strings is a part of those words, or holds
them: what `pytest.raises(match=...)`, `in err` and the tables of `test_errors_of_commands.py` and
`test_errors_of_calls.py` compare with.
"""

import ast
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 16  # letters that a message and a string share by no accident
SHORTEST = 10  # letters of a test's string that tell a message from others
# Words of which alone no message is made.
COMMON = {"and", "are", "can", "expected", "for", "has", "must", "not", "number", "one", "received", "the"}
NO_WORDS = "is in a table or a test of its own, but has no words that tell it from others"
# (file, part of its words) -> why no test provokes it, or none is recognised
ALLOWED = {
    ("data/face_landmarker.py", "MediaPipe can't open it"): "needs MediaPipe, whose network is not ours",
    ("data/widerface.py", ". Received  … : "): NO_WORDS,
    ("data/widerface.py", ". Received: "): NO_WORDS,
    ("runtimes/openvino.py", "OpenVINO can't open it"): "a graph that ONNX knows and OpenVINO does not",
    ("training/build.py", "has other anchors or variances than"): "needs two whole networks for one comparison",
    ("training/multi_worker.py", "a model must be built before"): "needs two processes that find each other",
    ("training/start.py", " is  … , not "): NO_WORDS,
    ("training/strategy.py", "can't join the others"): "needs two processes that do not find each other",
}


def words_of(node):
    """The literal parts of a message: list of str. What is looked up or cut out of values is no word of it."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Subscript):
        return []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [word for argument in node.args for word in words_of(argument)] if node.func.attr == "join" else []
    return [word for child in ast.iter_child_nodes(node) for word in words_of(child)]


def errors():
    """(file, line, words) of each `raise` with words of its own."""
    for path in sorted((ROOT / "retinaface_tf").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, (ast.Call, ast.IfExp)):
                words = words_of(node.exc)
                if any(len(word.strip()) >= 4 for word in words):
                    yield path.relative_to(ROOT / "retinaface_tf").as_posix(), node.lineno, words


class Strings:
    """What tests compare messages with; regular expressions are cut at what is not literal."""

    def __init__(self, strings):
        parts = {part.strip(" ^$") for string in strings for part in re.split(r"\.[*+]", string.replace("\\", ""))}
        self.all = sorted(part for part in parts if len(part) >= SHORTEST and _says_something(part))
        self.starts = defaultdict(list)
        for string in self.all:
            self.starts[string[:SHORTEST]].append(string)
        self.windows = {string[i : i + WINDOW] for string in self.all for i in range(len(string) - WINDOW + 1)}
        self.text = "\n".join(self.all)

    def are_about(self, words):
        """Whether one is a part of the words, holds a good part of them, or reaches over a value between two."""
        for word in map(str.strip, words):
            if len(word) >= SHORTEST and _says_something(word) and word in self.text:
                return True
            for i in range(len(word)):
                if any(word.startswith(string, i) for string in self.starts.get(word[i : i + SHORTEST], ())):
                    return True
                if word[i : i + WINDOW] in self.windows:
                    return True
        for before, after in pairwise(words):
            ends = before[-SHORTEST:] + "\n" + after[:6].rstrip()
            over_a_value = ".+".join(map(re.escape, ends.split("\n")))
            if len(ends) >= 8 and _says_something(ends) and re.search(over_a_value, self.text):
                return True
        return False


def _says_something(string):
    return not set(re.findall("[a-z]{3,}", string.lower())) <= COMMON


@pytest.fixture(scope="module")
def strings():
    found = set()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.name != Path(__file__).name:
            tree = ast.parse(path.read_text("utf-8"))
            constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            found |= {value for value in constants if isinstance(value, str) and "\n" not in value}
    return Strings(found)


def is_allowed(file, words):
    return any(is_about(key, file, words) for key in ALLOWED)


def is_about(key, file, words):
    where, part = key
    whole = " … ".join(words)
    return file == where and (part == whole if ALLOWED[key] == NO_WORDS else part in whole)


def test_every_error_is_provoked_by_a_test(strings):
    missing = [
        f"{file}:{line}: {' … '.join(words)[:120]}"
        for file, line, words in errors()
        if not strings.are_about(words) and not is_allowed(file, words)
    ]
    assert not missing, "no test provokes:\n" + "\n".join(missing)


def test_every_exception_of_the_list_is_still_one(strings):
    left = [(file, words) for file, _, words in errors() if not strings.are_about(words)]
    for key in ALLOWED:
        assert any(is_about(key, file, words) for file, words in left), key


def test_an_error_without_a_test_is_seen(strings):
    tree = ast.parse("raise ValueError(f\"`{name}` must be a purple cow. Received: {values['some long key']}\")")
    words = words_of(tree.body[0].exc)
    assert words == ["`", "` must be a purple cow. Received: "]
    assert not strings.are_about(words[1:])
    assert Strings(["must be a purple cow"]).are_about(words)
    assert Strings(["^`colour` must be a purple cow. Received: 3"]).are_about(words)
