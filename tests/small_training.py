"""A small model with everything in it, and a batch for it."""

import keras
import numpy as np

from retinaface_tf import RetinaFace
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD


def small_model(seed=0, **options):
    keras.utils.set_random_seed(seed)
    model = RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)})
    optimizer = MomentumSGD(1e-2, coupled_decay=1e-3, use_ema=True, ema_momentum=0.9, **options)
    model.compile(optimizer, loss=Objective(), run_eagerly=True)
    return model


def small_batch():
    random = np.random.default_rng(0)
    faces = {
        "boxes": np.array([[[8, 8, 40, 40]], [[4, 4, 14, 12]]], "float32"),
        "landmarks": random.uniform(8, 40, (2, 1, 5, 2)).astype("float32"),
        "visible": np.ones((2, 1, 5), "int32"),
    }
    return random.integers(0, 256, (2, 48, 48, 3)).astype("uint8"), faces


def step(model, times=1):
    images, faces = small_batch()
    for _ in range(times):
        model.train_step((images, faces))
