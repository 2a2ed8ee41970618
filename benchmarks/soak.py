"""Memory over many detections of ever new sizes, in one process.

    python benchmarks/soak.py [--model FILE] [--runtime NAME] [--count 1000]

Prints resident memory each 100 photos, and its change between the middle and the end. The photos are the bundled one,
cropped and scaled to random sizes from 40 to 1,600 pixels.
"""

import argparse
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm


def resident_megabytes():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--model", default="mobilenet025_wider", help="as `retinaface_tf.load` takes it")
    parser.add_argument("--runtime", help="likewise")
    args = parser.parse_args()
    count = args.count
    from retinaface_tf import load
    from retinaface_tf.image.loading import load_image

    model = load(args.model, runtime=args.runtime)
    photo = Image.fromarray(load_image("retinaface_tf/samples/astronaut.jpg"))
    random = np.random.default_rng(0)
    memory, faces = [], 0
    for i in tqdm(range(count), file=sys.stderr):
        width, height = (int(v) for v in random.integers(40, 1600, 2))
        left, top = random.integers(0, 150, 2)
        view = photo.crop((left, top, 512 - left, 512 - top)).resize((width, height))
        faces += len(model.detect(np.asarray(view)))
        memory.append(resident_megabytes())
        if (i + 1) % 100 == 0:
            print(f"after {i + 1}: {memory[-1]:.0f} MB")
    middle = memory[count // 2 - 1]
    print(f"faces {faces}" + (f"; traces {model.inference().traces()}" if args.runtime == "keras" else ""))
    change = f"{memory[-1] / middle - 1:+.1%}"
    print(f"memory after {count // 2} photos {middle:.0f} MB, after {count} photos {memory[-1]:.0f} MB: {change}")


if __name__ == "__main__":
    main()
