"""Speed of `convert` against plain JPEG decoding on the same cores: images a second and their ratio.

    python benchmarks/convert.py --images DIR

Any folder of JPEG photos serves; WIDER-like boxes are made up. Each number is the median of `--repeat` runs, contenders
in turn, each in `--workers` processes that are started and warm before the clock runs for the decoding limit; `convert`
is timed whole as well, start of its processes included.
"""

import argparse
import hashlib
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.common.types import VISIBLE
from retinaface_tf.data.manifest import shard_name
from retinaface_tf.data.shards import ConvertOptions, available_cores, write_shard, write_shards

FACES = 12  # a photo, as WIDER FACE has


def decode(paths, library):
    """Read and decode every photo, and nothing else."""
    if library == "tensorflow":
        import tensorflow as tf

        for path in paths:
            tf.io.decode_jpeg(path.read_bytes(), channels=3)
        return
    import io

    from PIL import Image

    for path in paths:
        Image.open(io.BytesIO(path.read_bytes())).load()


def convert_part(index, records, images, output, options):
    part = (join(records), [images / record.files[0] for record in records])
    write_shard(index, part, output=Path(output), options=options, strict=False)


def warm(_):
    import PIL.Image  # noqa: F401
    import tensorflow as tf

    # One core a process, as one worker has.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.constant(0)
    time.sleep(0.5)


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N")
    parser.add_argument("--photos", type=int, default=1024, metavar="N", help="taken in turn from DIR")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    args = parser.parse_args()
    files = sorted(args.images.rglob("*.jpg"))
    if not files:
        sys.exit(f"{args.images}: no .jpg there")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "photos").mkdir()
        records, paths = [], []
        for number in range(args.photos):
            path = folder / "photos" / f"{number:06d}.jpg"
            shutil.copy(files[number % len(files)], path)
            random = np.random.default_rng(number)
            low = random.uniform(0, 100, (FACES, 2))
            landmarks, visible = random.uniform(0, 100, (FACES, 5, 2)), np.full((FACES, 5), VISIBLE)
            records.append(annotate_photo(path.name, np.concatenate([low, low + 40], -1), landmarks, visible))
            paths.append(path)
        parts = 4 * args.workers
        options = ConvertOptions(shards=parts)
        header_only = ConvertOptions(shards=parts, decode=False)
        pieces = [paths[i::parts] for i in range(parts)]
        contenders = {name: [] for name in ("decode, Pillow", "decode, TensorFlow", "convert", "convert --no-decode")}
        with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
            list(pool.map(warm, range(4 * args.workers)))

            def limit(library):
                list(pool.map(partial(decode, library=library), pieces))

            def shards(options):
                job = partial(convert_part, images=folder / "photos", output=folder, options=options)
                list(pool.map(job, range(parts), [records[i::parts] for i in range(parts)]))

            runs = [
                partial(limit, "pillow"),
                partial(limit, "tensorflow"),
                partial(shards, options),
                partial(shards, header_only),
            ]
            for _ in range(args.repeat):
                for seconds, run in zip(contenders.values(), runs, strict=True):
                    seconds.append(timed(run))
            digest = hashlib.sha256((folder / shard_name(0, parts)).read_bytes()).hexdigest()
        write = partial(
            write_shards, join(records), folder / "photos", options=options, source={}, workers=args.workers
        )
        whole = [timed(partial(write, output=folder / f"whole{number}", workers=args.workers)) for number in range(3)]
    size = np.mean([path.stat().st_size for path in files[: args.photos]]) / 1e3
    print(f"{args.photos} photos, {size:.0f} kB each, {args.workers} processes; first shard {digest[:8]}")
    limit_rate = args.photos / statistics.median(contenders["decode, Pillow"])
    for name, seconds in contenders.items():
        rate = args.photos / statistics.median(seconds)
        print(f"{name:<22}{rate:8.0f} images/s  {rate / limit_rate:5.2f} of decoding  (runs: {_range(seconds, args)})")
    start = statistics.median(whole) - statistics.median(contenders["convert"])
    print(f"starting the processes, once: {start:.1f} s")


def _range(seconds, args):
    return f"{args.photos / max(seconds):.0f} to {args.photos / min(seconds):.0f}"


if __name__ == "__main__":
    main()
