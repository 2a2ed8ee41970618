"""Detect assignments to variables, so that a traced copy of the weights can be updated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import tensorflow as tf

ASSIGNING = (
    "assign",
    "assign_add",
    "assign_sub",
    "batch_scatter_update",
    *(f"scatter_{kind}" for kind in ("add", "sub", "update", "max", "min", "mul", "div")),
    *(f"scatter_nd_{kind}" for kind in ("add", "sub", "update", "max", "min")),
    "_restore_from_tensors",
)


class WeightWatch:
    """A counter of the assignments to some variables.

    `set_weights`, `load_weights`, `variable.assign`, optimizers and checkpoints all end in a method of a `tf.Variable`;
    those of the watched variables count. A call inside a `tf.function` runs once, while the function is traced, and the
    assignment whenever it is called: then `version` compares the values from that time on. `counted` is for functions
    whose calls are known.

    Args:
        variables: Keras variables, also of a distribution strategy.
    """

    def __init__(self, variables: Iterable[keras.Variable]) -> None:
        self._variables = list(variables)
        self._count = 0
        self._known = 0  # depth of `counted`
        self._compare = False
        for variable in self._variables:
            for part in getattr(variable.value, "values", None) or [variable.value]:
                cls: Any = type(part)
                part.__class__ = _watched(cls)
                part._weight_watch = self

    def version(self) -> Any:
        """A value that differs from an earlier one if a variable was assigned since then."""
        if not self._compare:
            return self._count
        digest = hashlib.blake2b()
        for variable in self._variables:
            digest.update(variable.numpy())
        return digest.digest()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one assignment for a block that runs functions which assign, traced or not."""
        self._known += 1
        try:
            yield
        finally:
            self._known -= 1
            self._count += 1

    def notice(self) -> None:
        """Count an assignment."""
        self._count += 1
        if tf.inside_function() and not self._known:
            self._compare = True


@cache
def _watched(cls):
    """A subclass of a class of `tf.Variable` whose assignments are counted."""
    if hasattr(cls, "_weight_watch"):
        return cls

    def counting(name):
        method = getattr(cls, name)

        def assign(self, *args, **kwargs):
            try:
                return method(self, *args, **kwargs)
            finally:
                self._weight_watch.notice()

        return assign

    names = [name for name in ASSIGNING if hasattr(cls, name)]
    methods = {name: counting(name) for name in names}
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "_weight_watch": None, **methods})
