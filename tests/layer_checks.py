"""What every layer of ours has to stand: shapes, dtypes, configuration, serialization."""

import keras
import numpy as np


def run_layer_checks(cls, arguments, inputs, *, float32_output=False):
    """Check a layer class.

    Args:
        cls: the layer class.
        arguments: dict of all its own arguments, each at a value other than its default.
        inputs: function of (height, width) that returns an array, or a dict of arrays, `[2, height, width, C]`.
        float32_output: whether the output is float32 under mixed precision too.
    """
    layer = cls(**arguments)
    for height, width in ((8, 8), (5, 7), (1, 1)):
        value = inputs(height, width)
        expected = layer(value)
        symbolic = layer(_symbolic(value))
        unknown = layer(_symbolic(value, unknown=True))
        for eager, known, open_ in zip(*map(_flat, (expected, symbolic, unknown)), strict=True):
            assert tuple(eager.shape) == tuple(known.shape)
            assert all(size in (None, actual) for size, actual in zip(open_.shape, eager.shape, strict=True))

    # Every argument reaches its attribute, and comes back out of the configuration.
    config = layer.get_config()
    copy = cls.from_config(config)
    for name, value in arguments.items():
        assert _plain(getattr(layer, name)) == _plain(value), name
        assert _plain(getattr(copy, name)) == _plain(value), name
        assert name in config

    # Through Keras' registry, as in a .keras file, and the same numbers with the same weights.
    value = inputs(8, 8)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(twin) is cls
    twin(value)
    twin.set_weights(layer.get_weights())
    for ours, theirs in zip(_flat(layer(value)), _flat(twin(value)), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    mixed = cls(**arguments, dtype="mixed_bfloat16")
    for output in _flat(mixed(value)):
        assert keras.backend.standardize_dtype(output.dtype) == ("float32" if float32_output else "bfloat16")
    assert all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in mixed.weights)


def _flat(value):
    return [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def _symbolic(value, unknown=False):
    def one(array):
        height, width = (None, None) if unknown else array.shape[1:3]
        return keras.KerasTensor((None if unknown else array.shape[0], height, width, array.shape[3]), "float32")

    return {key: one(array) for key, array in value.items()} if isinstance(value, dict) else one(value)
