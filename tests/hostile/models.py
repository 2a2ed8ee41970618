"""Foreign models and shards that need TensorFlow: `.keras` files, and TFRecords with crafted examples."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .harness import PHOTO, Row, damaged, workplace
from .readers import check_annotations


def models(chance: random.Random, count: int) -> Iterator[Row]:
    yield _keras(chance, count // 2)
    yield from _shards(chance, count)


def _write(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile("a.keras", "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _edited(content: bytes, edit: Callable[[Any, str], None]) -> bytes:
    """The bytes of an HDF5 file whose first data set was changed."""
    import h5py

    Path("w.h5").write_bytes(content)
    with h5py.File("w.h5", "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, one: names.append(name) if isinstance(one, h5py.Dataset) else None)
        edit(file, names[0])
    return Path("w.h5").read_bytes()


def _keras(chance: random.Random, count: int) -> Row:
    import h5py

    from retinaface_tf import RetinaFace

    row = Row(".keras files: crafted and damaged")
    lookup = {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}
    lookup["registered_name"] = None

    def check(model: Any) -> None:
        assert isinstance(model, RetinaFace)
        assert all(np.isfinite(variable.numpy()).all() for variable in model.variables), "weights that are not finite"

    def replace_data(file: Any, name: str, **options: Any) -> None:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, **{"shape": shape, "dtype": "f4", **options})

    def link(file: Any, name: str) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("/tmp/other.h5", "/x")

    def not_finite(file: Any, name: str) -> None:
        file[name][...] = np.nan

    def text(file: Any, name: str) -> None:
        del file[name]
        file.create_dataset(name, data=[b"x"] * 4)

    with workplace():
        RetinaFace(num_filters=8).save("a.keras")
        with zipfile.ZipFile("a.keras") as archive:
            good = {name: archive.read(name) for name in archive.namelist()}
        config, weights = json.loads(good["config.json"]), good["model.weights.h5"]
        huge = partial(replace_data, shape=(2_000_000_000,), chunks=(1_000_000,), compression="gzip")
        outside = partial(replace_data, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        cases: list[tuple[str, dict[str, bytes]]] = [("the good file", good)]
        for name, edit in (("huge", huge), ("outside", outside), ("link", link), ("NaN", not_finite), ("text", text)):
            cases.append((f"weights: {name}", {**good, "model.weights.h5": _edited(weights, edit)}))
        changes: tuple[dict[str, Any], ...] = (
            *({"compile_config": {"optimizer": lookup, "loss": None}}, {**lookup}, {"class_name": "Lambda"}),
            {"module": "keras.utils", "class_name": "get_file", "registered_name": None, "config": {"fname": "x"}},
            {"module": "builtins", "class_name": "eval", "registered_name": None, "config": {}},
        )
        inner: tuple[dict[str, Any], ...] = (
            *({"num_filters": 10**9}, {"num_filters": "8"}, {"anchors": {"P3": [1e308]}}, {"pixel_mean": [1, 2]}),
            *({"pixel_mean": [1e300] * 3}, {"pixel_std": [0, 0, 0]}, {"variances": [0, 0]}, {"dtype": lookup}),
            *(
                {"dense": {"topology": "/etc/passwd"}},
                {"dense": {"embedding": 10**9}},
                {"backbone": ["x"]},
                {"folded": True},
            ),
        )
        cases += [
            (str(change)[:60], {**good, "config.json": json.dumps({**config, **change}).encode()}) for change in changes
        ]
        for change in inner:
            changed = {**config, "config": {**config["config"], **change}}
            cases.append((str(change)[:60], {**good, "config.json": json.dumps(changed).encode()}))
        cases += [
            ("deep", {**good, "config.json": b"[" * 100_000}),
            ("outside", {**good, "../../x": b"x"}),
            ("empty", {}),
        ]
        for what, files in cases:
            _write(files)
            row.attempt(what, partial(RetinaFace.from_preset, "a.keras"), check)
        _write({**good, "assets/x": b"\0" * 300_000_000}, zipfile.ZIP_DEFLATED)
        row.attempt("bomb", partial(RetinaFace.from_preset, "a.keras"), check)
        _write(good)
        content = Path("a.keras").read_bytes()
        for number in range(count):
            Path("a.keras").write_bytes(damaged(content, chance))
            row.attempt(f"damaged {number}", partial(RetinaFace.from_preset, "a.keras"), check)
    return row


STRANGE = (float("nan"), float("inf"), -1.0, 1e30, 0.0, 0.5, -1e30, 1e-30)
WHOLE = (0, -1, 2**31, 2**62, 1, -(2**63), 7)
BYTES = (b"", b"\xff\xfe", b"../../x", b"/etc/passwd", b"x" * 10_000, b"\0")


def _changed(record: bytes, chance: random.Random) -> bytes:
    """A tf.train.Example with one or two features of other values, types or lengths; or damaged bytes."""
    import tensorflow as tf

    if chance.random() < 0.2:
        return damaged(record, chance)
    example = tf.train.Example.FromString(record)
    features = example.features.feature
    for _ in range(chance.choice((1, 1, 2))):
        name, kind = chance.choice(sorted(features)), chance.randrange(7)
        if kind == 0:
            del features[name]
            continue
        one = features[name]
        if kind == 1:
            one.Clear()
            one.float_list.value.extend([chance.choice(STRANGE)] * chance.choice((0, 1, 2, 5, 1000)))
        elif kind == 2:
            one.Clear()
            one.int64_list.value.extend([chance.choice(WHOLE)] * chance.choice((0, 1, 2, 5)))
        elif kind == 3:
            one.Clear()
            one.bytes_list.value.extend([chance.choice(BYTES)] * chance.choice((0, 1, 2)))
        elif one.float_list.value:
            one.float_list.value[chance.randrange(len(one.float_list.value))] = chance.choice(STRANGE)
        elif one.int64_list.value:
            one.int64_list.value[0] = chance.choice(WHOLE)
        elif one.bytes_list.value:
            one.bytes_list.value[0] = damaged(one.bytes_list.value[0] or b"x", chance)
    return example.SerializeToString()


def _shards(chance: random.Random, count: int) -> Iterator[Row]:
    import tensorflow as tf

    from retinaface_tf.annotations.annotations import annotate_photo, join
    from retinaface_tf.data.example import read_shards
    from retinaface_tf.data.inspect import read_contents, read_photos, statistics
    from retinaface_tf.data.manifest import open_shards
    from retinaface_tf.data.pipeline import training_dataset
    from retinaface_tf.data.shards import ConvertOptions, write_shards

    read, train = Row("shards: crafted, read by inspect, validation"), Row("shards: crafted, trained on")

    def batches() -> None:
        options = {"image_size": 64, "batch_size": 2, "seed": 0, "shuffle_buffer": 4}
        for images, faces in training_dataset(open_shards("shards")[1], 4, **options).take(3):
            for name, values in {"images": images, **faces}.items():
                if values.dtype.is_floating:
                    assert np.isfinite(values.numpy()).all() and np.abs(values.numpy()).max(initial=0) < 1e7, name

    with workplace() as here:
        (here / "photos").mkdir()
        for index in range(4):
            Image.open(PHOTO).resize((96, 96)).save(f"photos/{index}.jpg")
        labels = join([annotate_photo(f"{index}.jpg", [[10, 10, 60, 60]]) for index in range(4)])
        write_shards(labels, "photos", "shards", ConvertOptions(shards=1), source={}, workers=1)
        manifest, (path,) = open_shards("shards")
        good = [bytes(record.numpy()) for record in tf.data.TFRecordDataset([str(path)])]
        for number in range(count):
            with tf.io.TFRecordWriter(str(path)) as writer:
                for record in good:
                    writer.write(_changed(record, chance) if chance.random() < 0.6 else record)
            content = path.read_bytes()
            manifest["shards"][0] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            Path("shards/manifest.json").write_text(json.dumps(manifest))
            read.attempt(f"labels {number}", lambda: read_shards(["shards"]), lambda found: check_annotations(found[0]))
            read.attempt(f"counts {number}", lambda: json.dumps(statistics(read_contents([path])), allow_nan=False))
            read.attempt(f"photos {number}", lambda: read_photos([path], 4, 4))
            if number % 4 == 0:
                train.attempt(f"batches {number}", batches)
    yield read
    yield train
