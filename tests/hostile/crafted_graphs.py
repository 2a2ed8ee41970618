"""Damaged `.tflite` and `.onnx` graphs, made from a seed: python tests/hostile/crafted_graphs.py MODEL [COUNT]

Each is opened and run in a process of its own, with limits of 6 GB and 30 CPU seconds. It holds if the process finds
faces or refuses the file in one line; a crash, a traceback or a message of several lines does not.
"""

import collections
import random
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
import numpy as np
import retinaface_tf
try:
    detector = retinaface_tf.load(sys.argv[1], threads=1)
    for shape in ((64, 64, 3), (65, 97, 3)):
        detector.detect(np.zeros(shape, np.uint8))
    print("ran")
except (ValueError, OSError, MemoryError) as error:
    print("several lines" if "\\n" in str(error) else "refused")
"""
TAIL = 120_000  # bytes: a flatbuffer's tables and a zip's directory are at the end
HELD = ("ran", "refused")


def damaged(content: bytes, seed: int) -> bytes:
    """The file with 1 to 32 bytes replaced, mostly near its end; every tenth is cut off as well."""
    rng = random.Random(seed)
    result = bytearray(content)
    start = 0 if rng.random() < 0.3 else max(0, len(result) - TAIL)
    for _ in range(rng.choice([1, 4, 32])):
        result[rng.randrange(start, len(result))] = rng.randrange(256)
    return bytes(result[: rng.randrange(len(result))] if rng.random() < 0.1 else result)


def attack(model: Path, count: int) -> collections.Counter:
    """How often each outcome came: "ran", "refused", "several lines", or "died" and the exit code."""
    outcomes = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{model.suffix}"
        for seed in range(count):
            path.write_bytes(damaged(model.read_bytes(), seed))
            done = subprocess.run([sys.executable, "-c", CODE, path], capture_output=True, text=True)
            outcomes[done.stdout.strip() or f"died {done.returncode}"] += 1
    return outcomes


if __name__ == "__main__":
    found = attack(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
    print(f"{sys.argv[1]}: {found.total()} tried, {sum(found[name] for name in HELD)} held: {dict(found)}")
