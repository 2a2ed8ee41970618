"""Averaged weights (EMA) in the place of the current ones, for as long as somebody looks."""

from contextlib import contextmanager


def averages(optimizer):
    """(variable, its average) pairs that a Keras optimizer keeps with `use_ema`: list, empty without."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16 wraps it for loss scaling
    if not getattr(optimizer, "use_ema", False):
        return []
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


@contextmanager
def averaged_weights(model):
    """Within the block the model has its averaged weights, afterwards the very same bits as before.

    (`keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds: a run that looks at its averages
    would train on other weights than one that does not.)
    """
    pairs = averages(model.optimizer)
    current = [variable.numpy() for variable, _ in pairs]
    if pairs and model.optimizer.iterations.numpy() > 0:
        for variable, average in pairs:
            variable.assign(average.numpy())
    try:
        yield model
    finally:
        for (variable, _), value in zip(pairs, current, strict=True):
            variable.assign(value)
