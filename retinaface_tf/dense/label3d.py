"""Add vertex labels to shards, fitted to the landmarks of each face."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from retinaface_tf.common.files import resolve
from retinaface_tf.data.manifest import file_sha256, open_shards, read_manifest, write_manifest
from retinaface_tf.data.shards import available_cores, each_shard, index_of, resume

BINS = 200  # of the histogram of residuals, a thousandth of the face's size each


@dataclass(frozen=True)
class LabelOptions:
    """What labels depend on, besides shards, topology and provider.

    Attributes:
        shards: number of shards, as many as there are.
        max_residual: faces whose landmarks are further off than this part of the face's size get no label.
        max_strain: neither do faces whose shape is further from the mean one, in standard deviations.
    """

    shards: int
    max_residual: float = 0.04
    max_strain: float = 1.5

    def __post_init__(self):
        for name in ("max_residual", "max_strain"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0. Received: {name}={getattr(self, name)}")


def label_shards(
    folder, output, provider, *, max_residual=0.04, max_strain=1.5, workers=None, overwrite=False, progress=None
):
    """Label the faces of all shards, or the rest of an interrupted run.

    Args:
        folder: folder of shards that `convert` wrote.
        output: folder to write; made if need be, of this data set alone.
        provider: what finds vertices, such as `vertex_providers.FromLandmarks`.
        max_residual, max_strain: see `LabelOptions`.
        workers, overwrite, progress: see `data.shards.write_shards`.

    Returns:
        The manifest, a dict. Its source says how many `vertices` a face has and the `topology_sha256`; its counts have
        `faces_fitted` and `faces_with_vertices`; each shard has its `residuals`, a histogram in thousandths.

    Raises:
        ValueError, OSError: as `open_shards` and `write_shards` do.
    """
    folder, output = Path(folder), Path(output)
    if resolve(output) == resolve(folder):
        raise ValueError(f"{output}: contains the input shards: give another folder for the labeled shards")
    manifest, paths = open_shards(folder)
    options = LabelOptions(len(paths), max_residual, max_strain)
    source = {
        "kind": "label3d",
        "shards": str(folder),
        "provider": provider.describe(),
        "vertices": len(provider.topology),
        "topology_sha256": provider.topology.sha256,
    }
    told = {**source, "shards": [shard["sha256"] for shard in manifest["shards"]]}
    source["sha256"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    chosen = dict(vars(options))
    output.mkdir(parents=True, exist_ok=True)
    done = resume(output, source, chosen, overwrite)
    write_manifest(output, source, chosen, done)
    report = progress or (lambda photos: None)
    for shard in done:
        report(shard["photos"])
    finished = {index_of(shard) for shard in done}
    tasks = [
        (index_of(s), (p, s)) for p, s in zip(paths, manifest["shards"], strict=True) if index_of(s) not in finished
    ]
    write = partial(label_shard, output=output, options=options, provider=provider)
    for _, shard in each_shard(write, tasks, min(workers or available_cores(), max(1, len(tasks)))):
        done.append(shard)
        write_manifest(output, source, chosen, done)
        report(shard["photos"])
    return write_manifest(output, source, chosen, done)


def label_shard(index, task, *, output, options, provider):
    """Write one shard under a temporary name and rename it. Returns its entry for the manifest, a dict."""
    from retinaface_tf.common.imports import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from retinaface_tf.data.example import parse_example
    from retinaface_tf.dense.vertex_labels import NO_FIT, write_vertices

    path, before = task
    final = output / before["file"]
    beside = output / f".{final.name}.{os.getpid()}.tmp"
    histogram, labeled = np.zeros(BINS, int), 0
    try:
        with tf.io.TFRecordWriter(str(beside)) as writer:
            for serialized in tf.data.TFRecordDataset(str(path)):
                photo = {key: value.numpy() for key, value in parse_example(serialized).items()}
                rows = []
                for fit in provider(photo):
                    good = fit and fit.residual <= options.max_residual and fit.strain <= options.max_strain
                    rows.append((fit.vertices if good else None, fit.residual if fit else NO_FIT))
                    labeled += bool(good)
                    if fit:
                        histogram[min(int(fit.residual * 1000), BINS - 1)] += 1
                message = tf.train.Example.FromString(serialized.numpy())
                write_vertices(message, rows, (photo["width"], photo["height"]))
                writer.write(message.SerializeToString(deterministic=True))
        entry = {**before, "faces_fitted": int(histogram.sum()), "faces_with_vertices": labeled}
        entry["residuals"] = np.trim_zeros(histogram, "b").tolist()
        entry["sha256"], entry["bytes"] = file_sha256(beside), beside.stat().st_size
        beside.replace(final)
    except tf.errors.OpError as error:
        raise OSError(f"{path}: can't be read, or {final} not written ({error.message})") from None
    finally:
        beside.unlink(missing_ok=True)
    return entry


def residual_percentiles(manifest, percents=(50, 95)):
    """Percentiles of the residual of the fits, as a fraction of the face size: list of float.

    Read off the histograms of the shards: exact to a thousandth. Without fits they are NaN.
    """
    total = np.zeros(BINS)
    for shard in manifest["shards"]:
        total[: len(shard["residuals"])] += shard["residuals"]
    if not total.sum():
        return [float("nan")] * len(percents)
    reached = np.cumsum(total) / total.sum()
    return [float(np.searchsorted(reached, percent / 100) + 1) / 1000 for percent in percents]


def require_labels(paths, topology):
    """Raise ValueError, naming the folder, unless shards have vertex labels of a topology."""
    for folder in sorted({Path(path).parent for path in paths}):
        source = (read_manifest(folder) or {}).get("source", {})
        has = source.get("vertices")
        if has is None:
            raise ValueError(f"{folder}: no vertex labels for the dense branch: make them with `retinaface-tf label3d`")
        if source.get("topology_sha256") != topology.sha256:
            raise ValueError(
                f"{folder}: labeled with a topology of {has} vertices; the model has another one, of {len(topology)}"
            )
