"""Averaged weights (EMA) in the place of the current ones, for as long as somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def averages(optimizer: Any) -> list[tuple[keras.Variable, keras.Variable]]:
    """(variable, its average) pairs that a Keras optimizer keeps with `use_ema`: list, empty without."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16 wraps it for loss scaling
    if not getattr(optimizer, "use_ema", False):
        return []
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


@contextmanager
def averaged_weights(
    model: keras.Model, start: Sequence[np.ndarray] | None = None, blend: float = 1.0
) -> Iterator[keras.Model]:
    """Within the block the model has the weights that are kept of it, afterwards the very same bits as before.

    Kept are the averaged weights, where the optimizer has them, and of these with `start` only a part: on the line
    between old and new weights often lies a model that is nearly as good as the new one on the new data, and nearly as
    good as the old one on the old (WiSE-FT, arXiv 2109.01903).

    (`keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds: a run that looks at its averages
    would train on other weights than one that does not.)

    Args:
        model: compiled `RetinaFace`.
        start: list of arrays as `model.get_weights()` gave them before the run, or `None`.
        blend: float in (0, 1]: how much is new; statistics of batch normalisation are blended like all others.
    """
    current = model.get_weights() if start else None
    pairs = averages(model.optimizer)
    before = [variable.numpy() for variable, _ in pairs]
    if pairs and model.optimizer.iterations.numpy() > 0:
        for variable, average in pairs:
            variable.assign(average.numpy())
    if start:
        new = model.get_weights()
        model.set_weights([blend * ours + (1 - blend) * old for ours, old in zip(new, start, strict=True)])
    try:
        yield model
    finally:
        if start:
            model.set_weights(current)
        for (variable, _), value in zip(pairs, before, strict=True):
            variable.assign(value)
