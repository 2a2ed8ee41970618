"""A trained model as a SavedModel: a numbered folder for TensorFlow Serving and for `retinaface_tf.load`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from retinaface_tf.common.types import PathLike
from retinaface_tf.export.metadata import describe, to_json
from retinaface_tf.export.serving_folder import next_version, write_warm_up
from retinaface_tf.export.serving_graph import build_signatures

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.export.options import ExportOptions


EXTRA = "assets.extra"  # TensorFlow's folder for what belongs to a SavedModel without being of its graph
METADATA_FILE = "retinaface.json"


def export_saved_model(model: RetinaFace, path: PathLike, options: ExportOptions, replace: bool = False) -> Path:
    """Write a new version below a folder, whole or not at all.

    Args:
        model: `RetinaFace`.
        path: folder of versions, made if need be: the SavedModel becomes `path/1`, or the number after the highest.
        options: `ExportOptions`. `size` must be `None`: a SavedModel takes images of any size.
        replace: bool. Take the place of the highest version instead.

    Returns:
        Path of the version.

    Raises:
        ValueError: for a `size`.
        OSError: if the folder can't be written or holds something else.
    """
    if options.size is not None:
        raise ValueError(f"a SavedModel takes images of any size: leave `size` out. Received: size={options.size}")
    target = next_version(path, replace)
    existed = target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name without a number is no version: TensorFlow Serving passes it over while it is being written.
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    old = beside.with_name(f"{beside.name}-old")
    try:
        _write(model, beside, options)
        _make_readable(beside)
        if target.exists():
            target.rename(old)
        beside.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if not existed and not any(target.parent.iterdir()):
            target.parent.rmdir()
    return target


def _write(model, folder, options):
    module = tf.Module()
    tf.saved_model.save(module, folder, signatures=build_signatures(model, options))
    extra = folder / EXTRA
    extra.mkdir()
    (extra / METADATA_FILE).write_text(to_json(describe(model, options)), "utf-8")
    write_warm_up(extra)


def _make_readable(folder):
    """Modes as `umask` has them: `mkdtemp`'s folder is for its owner alone, and a server is another user."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
