"""JSON that others wrote: a value of the right structure, or one line with the path."""

import json

import pytest

from retinaface_tf.common.json_files import (
    Choice,
    DictOf,
    FileName,
    Int,
    ListOf,
    Number,
    Optional,
    Text,
    check,
    parse_json,
    read_json,
)

SHARD = {"file": FileName(), "bytes": Int(low=0), "sha256": Text(64), "box": Optional(ListOf(Number(), 4))}
SCHEMA = {"format": Choice((1,)), "complete": bool, "shards": ListOf(SHARD), "counts": DictOf(Int(0, 9))}
GOOD = {
    "format": 1,
    "complete": True,
    "shards": [{"file": "a.tfrecord", "bytes": 3, "sha256": "00"}],
    "counts": {"faces": 2},
    "more": [None],
}


@pytest.fixture
def read(tmp_path):
    def read(content, schema=None, **options):
        path = tmp_path / "x.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_json(path, schema, **options)

    return read


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_that_follows_the_schema_is_its_value(read, encoding):
    assert read(json.dumps(GOOD).encode(encoding), SCHEMA) == GOOD


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", r"x\.json: not JSON \(line 1, column 1"),
        (b"[1,", r"not JSON \(line 1, column 4"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "the number '1e999' is out of range"),
        (b"[" + b"9" * 400 + b"]", "a number of 400 digits is out of range"),
        (b"[9223372036854775808]", "a number of 19 digits is out of range"),
        (b'["\xe9"]', "no UTF-8 text"),
        (b'[{"a": ["\\ud83d"]}]', r"'\\ud83d' is half of a letter"),
        (b'[{"\\udc00x": 1}]', r"'\\udc00' is half of a letter"),
        (b'[{"a": 1, "b": 2, "a": 3}]', "the key 'a' is there twice"),
    ],
)
def test_what_is_no_sound_json_is_one_line_with_the_path(read, content, line):
    with pytest.raises(ValueError, match=line) as told:
        read(content)
    assert "x.json: " in str(told.value) and "\n" not in str(told.value)


def test_a_whole_pair_is_a_letter(read):
    assert read(b'["\\ud83d\\ude00", "\\\\udcff"]') == ["\U0001f600", "\\udcff"]


def test_a_file_that_is_too_large_is_not_read(read):
    with pytest.raises(ValueError, match=r"x\.json: 4 bytes, more than the 3 that are allowed"):
        read(b"[11]", max_bytes=3)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ([], r"the content must be an object. Received: \[\]"),
        ({"format": 2}, r"`format` must be one of \[1\]. Received: 2"),
        ({"complete": 1}, "`complete` must be true or false. Received: 1"),
        ({"shards": {}}, "`shards` must be a list. Received: {}"),
        ({"shards": [{}]}, r"`shards\[0\]` must be an object with 'file'. Received: \[\]"),
        ({"shards": [{**GOOD["shards"][0], "bytes": -1}]}, r"`shards\[0\]\.bytes` must be an integer of at least 0"),
        ({"shards": [{**GOOD["shards"][0], "bytes": True}]}, "must be an integer of at least 0. Received: True"),
        ({"shards": [{**GOOD["shards"][0], "bytes": 1.0}]}, "must be an integer of at least 0. Received: 1.0"),
        ({"shards": [{**GOOD["shards"][0], "box": [1, 2]}]}, r"`shards\[0\]\.box` must be a list of 4"),
        ({"shards": [{**GOOD["shards"][0], "box": [1, 2, 3, "4"]}]}, r"`shards\[0\]\.box\[3\]` must be a number"),
        ({"shards": [{**GOOD["shards"][0], "sha256": "a\0"}]}, "must be a string of at most 64 printable characters"),
        ({"counts": {"faces": 10}}, r"`counts\['faces'\]` must be an integer of at least 0 and at most 9"),
    ],
)
def test_a_departure_from_the_schema_is_told_with_its_place(read, change, line):
    with pytest.raises(ValueError, match=line) as told:
        read({**GOOD, **change} if isinstance(change, dict) else change, SCHEMA)
    assert "x.json: " in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "a\\b", "C:a", "..", ".", "", "a\0", "n" * 256])
def test_a_name_that_leaves_its_folder_is_refused(name):
    with pytest.raises(ValueError, match="must be a file's name without a folder"):
        check(name, FileName())


def test_several_schemas_and_null():
    check(None, Optional(Int()))
    check("a", (Int(), str))
    with pytest.raises(ValueError, match=r"must be an integer or a string. Received: \[\]"):
        check([], (Int(), str))
    assert parse_json("[1.5e3, -7]") == [1500.0, -7]
