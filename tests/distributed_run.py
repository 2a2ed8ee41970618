"""A process of a distributed training test: distributed_run.py DEVICES STRATEGY PRESET SHARDS OUTPUT FIELD=VALUE …"""

import sys

import tensorflow as tf

from retinaface_tf.cli.main import main

devices, strategy, preset, shards, output, *words = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
tf.config.threading.set_intra_op_parallelism_threads(1)
data = ["--preset", preset, "--quiet", "--data", shards, "--output", output]
sys.exit(main(["train", *data, "--strategy", strategy, "--set", *words]))
