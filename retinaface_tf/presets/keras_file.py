"""A `.keras` file of one's own as a preset."""

from pathlib import Path
from typing import Any

import keras

from retinaface_tf.common.types import PathLike


def load_keras_file(cls: Any, path: PathLike, weights: bool = True, overrides: dict[str, Any] | None = None) -> Any:
    """A model that `save` wrote.

    Args:
        cls: class that it must be of.
        path: of the file.
        weights: bool. `False` gives the architecture with fresh weights.
        overrides: dict of arguments of `cls` that replace the file's.

    Raises:
        ValueError: if the file holds no model of the class.
        OSError: if it can't be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a .keras file, saved with model.save")
    try:
        model: Any = keras.saving.load_model(path)
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a model that Keras can open ({reason})") from error
    if not isinstance(model, cls):
        raise ValueError(f"`{path}` holds a {type(model).__name__}. Expected a {cls.__name__}, saved with model.save")
    if weights and not overrides:
        return model
    other = cls(**{**model.get_config(), **(overrides or {})})
    if weights:
        other.set_weights(model.get_weights())
    return other
