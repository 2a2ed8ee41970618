import tensorflow as tf


def make_strategy(name):
    return tf.distribute.get_strategy()
