"""Thin door to `retinaface-tf train` from a checkout: python train_tf.py --preset mobilenet025 --data shards/ …"""

import sys

from retinaface_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
