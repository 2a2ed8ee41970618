"""How the functions of data sets become graphs."""

import tensorflow as tf

# They are written in TensorFlow's operations and need no AutoGraph, whose rewriting costs every start some seconds.
as_graph = tf.autograph.experimental.do_not_convert
